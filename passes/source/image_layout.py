"""The layout (NCHW or NHWC) and the size of a source's image."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import onnx

from kcompiler.passes.regions.cells import MERGES, POINTWISE
from kcompiler.passes.source.source_inputs import dims
from kcompiler.runtime.errors import ModelError

Shape = tuple[int, int, int]
Layout = Literal["NCHW", "NHWC"]
CHANNELS_FIRST = (
    "Conv", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "BatchNormalization",
    "InstanceNormalization", "GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth", "QLinearConv", "ConvInteger",
    "ConvTranspose", "DeformConv",
)  # fmt: skip
"""Operators that are defined on NCHW: an image that one of them reads is NCHW."""


def to_channels_first(graph: onnx.GraphProto, image: str) -> list[onnx.NodeProto]:
    """The Transposes of the image from NHWC to NCHW."""
    return [node for node in graph.node if image in node.input and _is_to_channels_first(node)]


def _is_to_channels_first(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and any(a.name == "perm" and list(a.ints) == [0, 3, 1, 2] for a in node.attribute)


def find_layout(graph: onnx.GraphProto, image: str) -> Layout | None:
    """NHWC if the image reaches only Transposes to NCHW through elementwise operators, NCHW if a spatial operator, else None."""
    outputs = {value.name for value in graph.output}
    worklist, seen, transposed, only_transposed = [image], {image}, False, True
    while worklist:
        name = worklist.pop()
        only_transposed &= name not in outputs
        for node in (node for node in graph.node if name in node.input):
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


def image_shape(path: Path, image: onnx.ValueInfoProto, layout: Layout, given: tuple[int, ...] | None) -> Shape:
    declared = dims(image)[1:] or ["?", "?", "?"]
    wanted = tuple(given)[-3:] if given is not None else tuple(declared)
    if given is not None and (len(given) not in (3, 4) or (len(given) == 4 and given[0] != 1) or min(given) < 1):
        raise ModelError(f"{path}: input shape {list(given)} is not [1,]{','.join(layout[1:])} with sizes of at least 1")
    open_dims = [dim for dim in wanted if not isinstance(dim, int) or dim < 1]
    if open_dims:
        raise ModelError(
            f"{path}: image input {image.name} has open sizes {declared}; "
            f"say which size to compile for, for example --input-shape 3,224,224"
        )
    for axis, (dim, size) in enumerate(zip(declared, wanted, strict=True)):
        if isinstance(dim, int) and dim != size:
            raise ModelError(
                f"{path}: image input {image.name} is {declared} but the input shape says {list(wanted)} (axis {axis + 1})"
            )
    sizes = dict(zip(layout[1:], (int(size) for size in wanted), strict=True))
    return sizes["C"], sizes["H"], sizes["W"]
