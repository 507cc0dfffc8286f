"""The layout (NCHW or NHWC) and the size of a source's image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnx

from kcompiler.passes.regions.cells import MERGES, POINTWISE
from kcompiler.passes.source.source_inputs import PICTURE_CHANNELS, dims
from kcompiler.runtime.errors import ModelError

Shape = tuple[int, int, int]
Layout = Literal["NCHW", "NHWC"]
CHANNELS_FIRST = (
    "Conv", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "BatchNormalization",
    "InstanceNormalization", "GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth", "QLinearConv", "ConvInteger",
    "ConvTranspose", "DeformConv",
)  # fmt: skip
"""Operators that are defined on NCHW: an image that one of them reads is NCHW."""

PICTURE = (1, 3)
"""Sizes of an axis that tell that it is the channels: of a gray picture, of one in colour."""
USUAL = {"C": 3, "H": 224, "W": 224}
"""By axis, the size that an example names where the model states none."""


def to_channels_first(graph: onnx.GraphProto, image: str) -> list[onnx.NodeProto]:
    """The Transposes of the image from NHWC to NCHW."""
    return [node for node in graph.node if image in node.input and _is_to_channels_first(node)]


def _is_to_channels_first(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and any(a.name == "perm" and list(a.ints) == [0, 3, 1, 2] for a in node.attribute)


def find_layout(graph: onnx.GraphProto, image: str) -> Layout | None:
    """NHWC if the image reaches only Transposes to NCHW through elementwise operators, NCHW if a spatial operator, else None."""
    outputs = {value.name for value in graph.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    worklist, seen, transposed, only_transposed = [image], {image}, False, True
    while worklist:
        name = worklist.pop()
        only_transposed &= name not in outputs
        for node in readers.get(name, ()):
            if _is_to_channels_first(node):
                transposed = True
            elif node.op_type in CHANNELS_FIRST:
                return "NCHW"
            elif node.op_type not in (*POINTWISE, *MERGES) or len(node.output) != 1:
                only_transposed = False
            elif node.output[0] not in seen:
                seen.add(node.output[0])
                worklist.append(node.output[0])
    return "NHWC" if transposed and only_transposed else None


def layout_of(path: Path, image: onnx.ValueInfoProto, sizes: Sequence[int | str]) -> Layout:
    """The layout of an image whose readers do not tell, by the ``sizes`` of its axes behind the batch.

    1. One end is 1 or 3: these are the channels of a picture.
    2. Both ends are: ambiguous.
    3. The last axis is 4 (RGB with alpha) and the first is no number of channels: ambiguous.
    4. Else channels first, as most exporters write.

    Raises:
        ModelError: the sizes are ambiguous.
    """
    first, last = (sizes[end] in PICTURE for end in (0, -1))
    if first != last:
        return "NCHW" if first else "NHWC"
    if last or (sizes[-1] in PICTURE_CHANNELS and sizes[0] not in PICTURE_CHANNELS):
        raise ModelError(
            f"{path}: image input {image.name} {dims(image)} may have its channels first or last, and nothing that reads it "
            "tells; say which with --layout NHWC or --layout NCHW"
        )
    return "NCHW"


def wanted_sizes(path: Path, image: onnx.ValueInfoProto, given: tuple[int, ...] | None, axes: str) -> tuple[int | str, ...]:
    """Sizes of the three ``axes`` behind the batch: as ``given``, [1,] and one each, else as declared.

    Raises:
        ModelError: other sizes are given than the image can have.
    """
    if given is None:
        return tuple(_declared(image))
    if len(given) not in (3, 4) or (len(given) == 4 and given[0] != 1) or min(given) < 1:
        raise ModelError(
            f"{path}: input shape {list(given)} is not [1,]{','.join(axes)} with sizes of at least 1, for image input "
            f"{image.name} {dims(image)}"
        )
    return tuple(given)[-3:]


def image_shape(path: Path, image: onnx.ValueInfoProto, layout: Layout, wanted: Sequence[int | str]) -> Shape:
    """The size of the image from its :func:`wanted_sizes`.

    Raises:
        ModelError: a size is open, or is not the one that the model states.
    """
    declared = _declared(image)
    for_example = "--input-shape " + ",".join(map(str, _filled(declared, layout)))
    if any(not isinstance(size, int) or size < 1 for size in wanted):
        raise ModelError(
            f"{path}: image input {image.name} has open sizes {declared}; "
            f"say which size to compile for, for example {for_example}"
        )
    for axis, (dim, size) in enumerate(zip(declared, wanted, strict=True)):
        if isinstance(dim, int) and dim != size:
            raise ModelError(
                f"{path}: image input {image.name} is {declared} but the input shape says {list(wanted)} (axis {axis + 1}); "
                f"for example {for_example}"
            )
    sizes = dict(zip(layout[1:], (int(size) for size in wanted), strict=True))
    return sizes["C"], sizes["H"], sizes["W"]


def _declared(image: onnx.ValueInfoProto) -> list[int | str]:
    return dims(image)[1:] or ["?", "?", "?"]


def _filled(sizes: Sequence[int | str], layout: Layout) -> list[int]:
    """``sizes`` that a model may state, with usual ones in place of those that it leaves open."""
    return [size if isinstance(size, int) else USUAL[axis] for size, axis in zip(sizes, layout[1:], strict=True)]
