"""Heads: operators that read a whole map but can be updated by what changed in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emit import Emitter
from kcompiler.passes.geometry import Window
from kcompiler.passes.index import cell_index, contiguous_reads
from kcompiler.passes.lowering.site import Operand, as_rows

Head = Callable[[Emitter, Operand], gs.Variable]
HEADS: dict[str, Head] = {}


def head(*operators: str) -> Callable[[Head], Head]:
    """Enters the decorated function into the table for ``operators``: it returns the node's output for the whole batch."""

    def enter(lower: Head) -> Head:
        for operator in operators:
            assert operator not in HEADS, f"two heads for {operator}"
            HEADS[operator] = lower
        return lower

    return enter


@head("GlobalAveragePool")
def global_average(emit: Emitter, operand: Operand) -> gs.Variable:
    """The mean of the cached map, plus what the updated region adds to it over what it replaces: [batch, C, 1, 1]."""
    box, channels = operand.updated.box, operand.updated.channels
    cells = box.y.size * box.x.size
    whole = emit("Slice", operand.cached(), emit.int64([0]), emit.int64([cells]), emit.int64([0]))
    mean = emit("ReduceMean", whole, emit.int64([0]), keepdims=1)

    replaced = emit("ReduceSum", emit("Gather", operand.cached(), cell_index(emit, box), axis=0), emit.int64([1, 2]), keepdims=0)

    area = emit("Cast", emit("Mul", box.y.extent, box.x.extent), to=TensorProto.INT64)
    shape = emit("Concat", emit.int64([-1]), emit("Unsqueeze", area, emit.int64([0])), emit.int64([channels]), axis=0)
    regions = emit("Reshape", _plain_rows(emit, operand), shape)
    added = emit("ReduceSum", regions, emit.int64([1]), keepdims=0)

    change = emit("Div", emit("Sub", added, replaced), emit.constant(np.array(cells, np.float32)))
    return emit("Reshape", emit("Add", mean, change), emit.int64([-1, channels, 1, 1]))


def _plain_rows(emit: Emitter, operand: Operand) -> gs.Tensor:
    """The region's rows, region by region."""
    if operand.updated.tile is None:
        return as_rows(emit, operand.updated)
    y, x = (contiguous_reads(emit, Window.identity(axis.size), axis) for axis in (operand.updated.box.y, operand.updated.box.x))
    return operand.read(emit, y, x)
