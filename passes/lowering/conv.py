"""Convolution on regions: as a Gemm over rows, or as a Conv over gathered regions."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from kcompiler.passes.lowering.site import Site, Updated, as_rows
from kcompiler.passes.lowering.table import Windows, lowering


def _ungrouped(node: gs.Node, windows: Windows) -> bool:
    return bool(node.attrs.get("group", 1) == 1)


def _one_by_one(node: gs.Node, windows: Windows) -> bool:
    """A wider window copies each cell kernel times; there the Conv on regions was faster in all three networks measured."""
    return all(window.kernel == 1 for window in windows)


@lowering("gemm", "Conv", applies=_ungrouped, suits=_one_by_one, gathers_windows=True)
def conv_as_gemm(site: Site) -> Updated:
    """im2col by Gather, then Gemm; a 1x1 convolution of stride 1 takes the rows as they are.

    The weights are brought from [M, C, kh, kw] to [kh * kw * C, M] by nodes on the constant, which ONNX Runtime folds
    when it loads the session: the bundle stores them once.
    """
    emit, operand = site.emit, site.operand
    y, x = site.windows
    weights, *bias = site.node.inputs[1:]
    depth = y.kernel * x.kernel * operand.updated.channels
    if depth == operand.updated.channels and operand.updated.box == site.output and y.stride == x.stride == 1:
        rows = as_rows(emit, operand.updated)
    else:
        rows = emit("Reshape", site.patches(operand), emit.int64([-1, depth]))
    columns = emit("Transpose", site.constant(weights), perm=[2, 3, 1, 0])
    matrix = emit("Reshape", columns, emit.int64([depth, site.channels]))
    return site.computed(rows=emit("Gemm", rows, matrix, *(site.constant(value) for value in bias if not value.is_empty())))


@lowering("regions", "Conv")
def conv_on_regions(site: Site) -> Updated:
    """The convolution itself, without padding, over the gathered input regions (padding comes as rows of zeros)."""
    emit, (y, x) = site.emit, site.windows
    maps = emit("Transpose", site.cells(site.operand), perm=[0, 3, 1, 2])
    return site.computed(
        maps=emit(
            "Conv",
            maps,
            *(site.constant(value) for value in site.node.inputs[1:] if not value.is_empty()),
            kernel_shape=[y.kernel, x.kernel],
            strides=[y.stride, x.stride],
            dilations=[y.dilation, x.dilation],
            pads=[0, 0, 0, 0],
            group=site.attribute("group", 1),
        )
    )
