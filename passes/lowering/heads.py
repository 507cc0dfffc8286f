"""Heads: operators that read a whole map but can be updated by what changed in it."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emit import Emitter
from kcompiler.passes.index import cell_index
from kcompiler.passes.lowering.site import Operand, as_rows
from kcompiler.passes.rules import Region
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


def updated_head(emit: Emitter, node: gs.Node, operand: Operand, region: Region) -> gs.Variable:
    """The mean (or sum) of the cached map, plus what the updated region adds to it over what it replaces, for the whole batch."""
    box, channels = operand.updated.box, operand.updated.channels
    cells = box.y.size * box.x.size
    whole = emit("Slice", operand.cached(), emit.int64([0]), emit.int64([cells]), emit.int64([0]))
    operator = "ReduceSum" if node.op == "ReduceSum" else "ReduceMean"
    cached = emit(operator, whole, emit.int64([0]), keepdims=1)

    replaced = emit("ReduceSum", emit("Gather", operand.cached(), cell_index(emit, box), axis=0), emit.int64([1, 2]), keepdims=0)

    area = emit("Cast", emit("Mul", box.y.extent(emit), box.x.extent(emit)), to=TensorProto.INT64)
    shape = emit("Concat", emit.int64([-1]), area, emit.int64([channels]), axis=0)
    regions = emit("Reshape", operand.in_plain_order(emit, as_rows(emit, operand.updated)), shape)
    added = emit("ReduceSum", regions, emit.int64([1]), keepdims=0)

    change = emit("Sub", added, replaced)
    if operator == "ReduceMean":
        change = emit("Div", change, emit.constant(np.array(cells, np.float32)))
    sizes = [-1, channels]
    if node.op == "GlobalAveragePool" or node.attrs.get("keepdims", 1):
        sizes = [-1, 1, 1, channels] if region.last else [-1, channels, 1, 1]
    return emit("Reshape", emit("Add", cached, change), emit.int64(sizes))
