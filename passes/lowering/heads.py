"""Heads: reductions over a whole map, updated from the region alone."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes import assumed
from kcompiler.passes.emission.box import Axis
from kcompiler.passes.emission.index import within
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.quantised import quantised_behind
from kcompiler.passes.lowering.operand import Operand, Updated, as_rows, in_regions
from kcompiler.passes.regions.cells import POINTWISE
from kcompiler.passes.regions.channels import summed_axes
from kcompiler.passes.regions.region import Region

LOOKED_AT = 16
"""Pointwise operators in a row in front of a head: networks have a few."""


def is_head(node: gs.Node, region: Region) -> bool:
    """Whether ``node``, which reads a value with ``region``, is a mean or sum over all cells, whose output can be updated.

    This includes the first of two such reductions, one axis after the other: its updated output is the whole mean or sum, in one
    cell, which the second reduction leaves as it is. It excludes outputs that are quantised later: another order of summation
    could move a value across a quantisation step.
    """
    if not node.outputs:  # a Shape whose output was folded to a constant
        return False
    sums = summed_axes(node) == [*region.cell_axes] or _is_first_of_two(node, region)
    return sums and quantised_behind(node.outputs[0]) is None


def _is_first_of_two(node: gs.Node, region: Region) -> bool:
    """Whether ``node`` reduces along one axis, and its only reader is the same operator along the other."""
    axes, readers = summed_axes(node), node.outputs[0].outputs
    if (
        axes is None
        or len(axes) != 1
        or axes[0] not in region.cell_axes
        or not node.attrs.get("keepdims", 1)
        or len(readers) != 1
    ):
        return False
    rest = summed_axes(readers[0]) or []
    return readers[0].op == node.op and {*axes, *rest} == {*region.cell_axes}


def only_summed(value: gs.Tensor, region: Region) -> bool:
    """Whether ``value``, which has ``region``, is read by heads only, directly or through pointwise operators.

    An estimate for prices: a plan with a dense tail may not use the heads, and no more than LOOKED_AT values are looked at.
    """
    worklist = [value]
    for _ in range(LOOKED_AT):
        if not worklist:
            return True
        readers = worklist.pop().outputs
        further = [node for node in readers if not is_head(node, region)]
        if not readers or not all(node.op in POINTWISE for node in further):
            return False
        worklist += [node.outputs[0] for node in further]
    return not worklist


def is_pooled(region: Region) -> bool:
    """Whether the map is small enough that :func:`region_sum` pools its region as maps, without a transposition to rows."""
    return region.y.size * region.x.size <= assumed.POOLED


def updated_head(emit: Emitter, node: gs.Node, operand: Operand, region: Region) -> gs.Variable:
    """The mean (or sum) of the cached map with the updated region pasted in, for the whole batch.

    The cached cells outside of the region are summed. The cached sum minus the replaced cells would cancel where these dominate
    it (a bright spot behind an exponential). Sums over many cells go along one axis, then the other: ONNX Runtime accumulates
    sequentially, and its rounding error grows with the length.
    """
    value = operand.updated
    height, width, channels = value.box.y.size, value.box.x.size, value.channels
    cells = emit("Slice", operand.cached(), emit.int64([0]), emit.int64([height * width]), emit.int64([0]))
    lines = emit("ReduceSum", emit("Reshape", cells, emit.int64([height, width, channels])), emit.int64([1]), keepdims=0)
    (inside_y, outside_y), (_, outside_x) = (_masks(emit, axis) for axis in (value.box.y, value.box.x))
    columns = emit("MatMul", inside_y, emit("Reshape", cells, emit.int64([height, width * channels])))
    columns = emit("Reshape", columns, emit.int64([-1, width, channels]))
    beside = emit("Squeeze", emit("MatMul", emit("Unsqueeze", outside_x, emit.int64([1])), columns), emit.int64([1]))
    total = emit("Add", emit("Add", emit("MatMul", outside_y, lines), beside), region_sum(emit, value))
    if node.op != "ReduceSum":
        total = emit("Div", total, emit.constant(np.array(height * width, np.float32)))
    sizes = [-1, channels]
    if node.op == "GlobalAveragePool" or node.attrs.get("keepdims", 1):
        sizes = [-1, 1, 1, channels] if region.last else [-1, channels, 1, 1]
    return emit("Reshape", total, emit.int64(sizes))


def region_sum(emit: Emitter, value: Updated) -> gs.Variable:
    """The sum over all cells of the updated region: [batch, C]. Maps are pooled, which ONNX Runtime does in NCHWc."""
    if value.maps is not None and value.box.y.size * value.box.x.size <= assumed.POOLED:
        area = emit("Mul", value.box.y.extent(emit), value.box.x.extent(emit))
        mean = emit("Reshape", emit("GlobalAveragePool", value.maps), emit.int64([-1, value.channels]))
        return emit("Mul", mean, emit("Cast", area, to=TensorProto.FLOAT))
    return _sum_over_cells(emit, in_regions(emit, value, value.in_plain_order(emit, as_rows(emit, value))))


def _sum_over_cells(emit: Emitter, regions: gs.Tensor) -> gs.Variable:
    """The sums over h and w of [batch, h, w, C]."""
    return emit("ReduceSum", emit("ReduceSum", regions, emit.int64([2]), keepdims=0), emit.int64([1]), keepdims=0)


def _masks(emit: Emitter, axis: Axis) -> tuple[gs.Variable, gs.Variable]:
    """Masks of the cells inside and outside of the region along an axis: float32 [batch, cells of the map]."""
    assert axis.number is not None, "a region is updated, not a whole map"
    from_origin = emit("Sub", emit.int32(np.arange(axis.size)), axis.places.origins(axis.number, 2))
    inside = within(emit, from_origin, emit.int32(0), axis.extent(emit))
    return emit("Cast", inside, to=TensorProto.FLOAT), emit("Cast", emit("Not", inside), to=TensorProto.FLOAT)
