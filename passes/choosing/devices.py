"""What the choice assumes of the device that a variant runs on: its rates, batch sizes, and how ONNX Runtime uses it."""

from __future__ import annotations

from dataclasses import dataclass

from kcompiler.passes import assumed
from kcompiler.passes.lowering.work import DEFAULT_RATES, Rates
from kcompiler.runtime.bundle.variant import DeviceName


@dataclass(frozen=True, slots=True)
class Device:
    """A device, and how compiled models use it.

    Attributes:
        name: "cpu" or "cuda".
        rates: assumed of it.
        batches: batch sizes to choose from.
        small_batch: a smaller one, for models whose activations exceed the caches.
        classes: number of classes of extents: the shapes of a batch are those of its class, so few shapes occur. 0 if each batch
            has the extents of its own positions.
        transforms: whether compiled graphs may convolve in a transformed domain (Winograd). cuDNN has transforms of its own.
        blocked_layout: whether ONNX Runtime convolves in its blocked layout (NCHWc).
        integers: whether ONNX Runtime has products of 8-bit integers there that take their scale at run time.
    """

    name: DeviceName
    rates: Rates
    batches: tuple[int, ...]
    small_batch: int
    classes: int
    transforms: bool
    blocked_layout: bool
    integers: bool


CPU = Device("cpu", DEFAULT_RATES, (16, 32, 64, 128), 8, classes=0, transforms=True, blocked_layout=True, integers=True)
CUDA = Device(
    "cuda",
    Rates(
        products=assumed.CUDA_PRODUCTS, convolved=assumed.CUDA_CONVOLVED, integer=assumed.CUDA_PRODUCTS,
        moved=assumed.CUDA_MOVED, node=assumed.CUDA_NODE, cached=0.0,
    ),
    (128, 256, 512, 1024), 64, classes=assumed.CUDA_CLASSES, transforms=False, blocked_layout=False, integers=False,
)  # fmt: skip
DEVICES = {device.name: device for device in (CPU, CUDA)}
