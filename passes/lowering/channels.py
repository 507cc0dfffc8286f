"""Operators across the channels of a cell: on rows, each of them works along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.lowering.layout import as_read, rows_as_read, rows_shared
from kcompiler.passes.lowering.operand import Updated, as_rows
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import Shape, Work, read_again
from kcompiler.passes.regions.channels import REDUCTIONS, selected


def concatenate(site: Site) -> Updated:
    """Concat along the channels, all branches as rows on the union box."""
    operands = [operand for operand in site.inputs if operand is not None]
    rows = [site.aligned_rows(operand) for operand in operands]
    return site.computed(rows=site.emit("Concat", *rows, axis=1), zeros=site.zeros(operands))


def _on_rows(site: Site, operator: str, *inputs: gs.Tensor, **attributes: Any) -> Updated:
    """``operator`` on the region's rows, in their own row order."""
    return site.computed(rows=site.emit(operator, as_rows(site.emit, site.value), *inputs, **attributes))


def normalise_channels(site: Site) -> Updated:
    """The operator itself, along the last axis of the rows."""
    return _on_rows(site, site.node.op, axis=-1, **_without_axis(site.node))


def layer_normalization(site: Site) -> Updated:
    """The operator itself; its scale and bias, which may have leading axes of one ([1, 1, 1, C]), become [C]."""
    constants = [value for value in site.node.inputs[1:] if not value.is_empty()]
    parameters = [site.emit.constant(np.asarray(value.values).reshape(-1), value.name) for value in constants]
    return _on_rows(site, site.node.op, *parameters, axis=-1, **_without_axis(site.node))


def _without_axis(node: gs.Node) -> dict[str, Any]:
    return {name: value for name, value in node.attrs.items() if name != "axis"}


def local_response_normalization(site: Site) -> Updated:
    """The operator itself on each cell as a 1x1 map, since LRN requires NCHW."""
    emit, value = site.emit, site.value
    cells = emit("Reshape", as_rows(emit, value), emit.int64([-1, value.channels, 1, 1]))
    rows = emit("Reshape", emit("LRN", cells, **site.node.attrs), emit.int64([-1, value.channels]))
    return site.computed(rows=rows)


def reduce_channels(site: Site) -> Updated:
    """The operator itself, over axis 1 of the rows."""
    return _on_rows(site, site.node.op, site.emit.int64([1]), keepdims=1)


def take_channels(site: Site) -> Updated:
    """The selected channels.

    A contiguous range of a row's channels is a Slice. Any other selection gathers rows of the transposed matrix: a Gather along
    the last axis copies element by element and took 3 to 5 times as long as two transpositions with a Gather between them.
    """
    emit, value = site.emit, site.value
    indices = selected(site.node, site.region)
    if value.maps is not None:
        return site.computed(maps=emit("Gather", value.maps, emit.int64(indices), axis=1))
    if np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        first, last = emit.int64([indices[0]]), emit.int64([indices[0] + len(indices)])
        rows = emit("Slice", as_rows(emit, value), first, last, emit.int64([1]))
    else:
        columns = emit("Transpose", as_rows(emit, value), perm=[1, 0])
        rows = emit("Transpose", emit("Gather", columns, emit.int64(indices), axis=0), perm=[1, 0])
    return site.computed(rows=rows, zeros=value.zeros)


def transpose(site: Site) -> Updated:
    """The input region itself: the layout of a region does not depend on whether the source is NCHW or channels last."""
    return site.value


def _product_work(shape: Shape) -> Work:
    elements = shape.cells * (shape.channels + shape.outputs)
    flops = 2 * shape.cells * shape.channels * shape.outputs
    return Work(
        products=flops,
        moved=elements + read_again(flops, shape.cells * shape.batch, shape.channels),
        loaded=shape.channels * shape.outputs / shape.batch,
        nodes=1 / shape.batch,
        held=elements,
    )


def multiply_channels(site: Site) -> Updated:
    """The rows times the constant matrix."""
    value = site.value
    rows = site.emit("MatMul", as_rows(site.emit, value), site.constant(site.node.inputs[1]))
    return site.computed(rows=rows, zeros=value.zeros)


LOWERINGS = (
    Lowering("channels", ("Concat",), concatenate, rows_shared),
    Lowering("rows", ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), normalise_channels, rows_as_read),
    Lowering("rows", ("LayerNormalization",), layer_normalization, rows_as_read),
    Lowering("rows", ("LRN",), local_response_normalization, rows_as_read),
    Lowering("rows", REDUCTIONS, reduce_channels, rows_as_read),
    Lowering("rows", ("Gather",), take_channels, as_read),
    Lowering("as it is", ("Transpose",), transpose, as_read),
    Lowering("gemm", ("MatMul",), multiply_channels, rows_as_read, work=_product_work),
)
