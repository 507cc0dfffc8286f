"""The sizes of what is measured: for a GPU, and tiny ones for a rehearsal on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NETWORKS = ("resnet18", "vgg16", "demo", "inception_v3", "mobilenet_v2")
PATCH = 16


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes.

    Attributes:
        provider: ONNX Runtime execution provider.
        networks: measured by default, the most important first.
        ablated: those of them with ablations.
        stride: of the grid of positions.
        checked: positions that are compared with full inference.
        full: batch sizes of full inference.
        rounds: timed rounds.
        gemm: side of square matrices.
        convolution: images, channels and side of feature maps.
        regions: the same of regions.
        floats: elements of an array that is copied.
        chains: numbers of equal operators in a row, (fewer, more); the difference of their times is that of an operator.
        launches: the same for operators that compute next to nothing.
        batches: batch sizes of the compiled model in the ablation.
        classes: numbers of classes of extents in the ablation.
        torch: networks, side of the image and batch sizes for full inference in PyTorch.
        share: estimates and limits of sections over those of a GPU.
        least_limit: time limit of a section in seconds, at least: processes start slowly.
        longest: seconds that an ablation may take.
    """

    provider: Literal["cuda", "cpu"]
    networks: tuple[str, ...]
    ablated: tuple[str, ...]
    stride: int
    checked: int
    full: tuple[int, ...]
    rounds: int
    gemm: int
    convolution: tuple[int, int, int]
    regions: tuple[int, int, int]
    floats: int
    chains: tuple[int, int]
    launches: tuple[int, int]
    batches: tuple[int, ...]
    classes: tuple[int, ...]
    torch: tuple[tuple[str, ...], int, tuple[int, ...]]
    share: float
    least_limit: float
    longest: float


GPU = Scale(
    "cuda", NETWORKS, ablated=("resnet18", "vgg16"), stride=4, checked=64, full=(1, 8, 32, 64, 128, 256), rounds=5, gemm=8192,
    convolution=(64, 256, 56), regions=(512, 128, 12), floats=1 << 28, chains=(1, 4), launches=(200, 600),
    batches=(64, 128, 256, 512, 1024), classes=(1, 4, 8, 16), torch=(("resnet18", "vgg16"), 224, (64, 256)), share=1.0,
    least_limit=15.0, longest=12.0,
)  # fmt: skip
CPU = Scale(
    "cpu", ("residual", "chain"), ablated=("residual",), stride=8, checked=8, full=(1, 4), rounds=2, gemm=128,
    convolution=(1, 8, 16), regions=(4, 8, 6), floats=1 << 14, chains=(1, 3), launches=(20, 60), batches=(16, 64), classes=(1, 4),
    torch=(("resnet18",), 32, (1, 2)), share=0.2, least_limit=100.0, longest=60.0,
)  # fmt: skip
SCALES = {scale.provider: scale for scale in (GPU, CPU)}
