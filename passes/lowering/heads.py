"""Heads: operators that read a whole map but can be updated by what changed in it."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.box import Box
from kcompiler.passes.emit import Emitter
from kcompiler.passes.index import within
from kcompiler.passes.lowering.site import Operand, Updated, as_rows
from kcompiler.passes.rules import Region
from kcompiler.passes.rules.cells import POINTWISE
from kcompiler.passes.rules.table import numbers

MEANS = ("GlobalAveragePool", "ReduceMean", "ReduceSum")


def is_head(node: gs.Node, region: Region) -> bool:
    """Whether the output of ``node``, which reads a value of ``region``, can be updated: a mean or sum over all cells."""
    if node.op not in MEANS or (region.last and node.op == "GlobalAveragePool"):
        return False
    if node.op == "GlobalAveragePool":
        return True
    if len(node.inputs) > 1 and not isinstance(node.inputs[1], gs.Constant):
        return False
    axes = numbers(node, 1, "axes")
    return axes is not None and sorted(axis % 4 for axis in axes) == [*region.cell_axes]


def only_summed(value: gs.Tensor, region: Region) -> bool:
    """Whether ``value`` of ``region`` is read by heads only, directly or through operators that go cell by cell."""
    return bool(value.outputs) and all(
        is_head(node, region) or (node.op in POINTWISE and only_summed(node.outputs[0], region)) for node in value.outputs
    )


def updated_head(emit: Emitter, node: gs.Node, operand: Operand, region: Region) -> gs.Variable:
    """The mean (or sum) of what the patch leaves of the cached map and of the updated region, for the whole batch."""
    value = operand.updated
    cells = value.box.y.size * value.box.x.size
    whole = emit("Slice", operand.cached(), emit.int64([0]), emit.int64([cells]), emit.int64([0]))
    total = emit("Add", emit("MatMul", _left(emit, value.box), whole), region_sum(emit, value))
    if node.op != "ReduceSum":
        total = emit("Div", total, emit.constant(np.array(cells, np.float32)))
    sizes = [-1, value.channels]
    if node.op == "GlobalAveragePool" or node.attrs.get("keepdims", 1):
        sizes = [-1, 1, 1, value.channels] if region.last else [-1, value.channels, 1, 1]
    return emit("Reshape", total, emit.int64(sizes))


def region_sum(emit: Emitter, value: Updated) -> gs.Variable:
    """The sum over all cells of the updated region: [batch, C]. One held as maps is pooled, which the blocked layout can do."""
    area = emit("Mul", value.box.y.extent(emit), value.box.x.extent(emit))
    if value.maps is not None:
        mean = emit("Reshape", emit("GlobalAveragePool", value.maps), emit.int64([-1, value.channels]))
        return emit("Mul", mean, emit("Cast", area, to=TensorProto.FLOAT))
    shape = emit("Concat", emit.int64([-1]), emit("Cast", area, to=TensorProto.INT64), emit.int64([value.channels]), axis=0)
    rows = emit("Reshape", value.in_plain_order(emit, as_rows(emit, value)), shape)
    return emit("ReduceSum", rows, emit.int64([1]), keepdims=0)


def _left(emit: Emitter, box: Box) -> gs.Variable:
    """1 for the cells of the map outside of the region, 0 for those inside: float32 [batch, H * W]."""
    inside = []
    for axis in (box.y, box.x):
        assert axis.number is not None, "a region is updated, not a whole map"
        cells = np.arange(axis.size).reshape([-1, 1] if axis.along == 0 else [-1])
        from_origin = emit("Sub", emit.int32(cells), axis.places.origins(axis.number, 3))
        inside.append(within(emit, from_origin, emit.int32(0), axis.extent(emit)))
    outside = emit("Cast", emit("Not", emit("And", *inside)), to=TensorProto.FLOAT)
    return emit("Reshape", outside, emit.int64([-1, box.y.size * box.x.size]))
