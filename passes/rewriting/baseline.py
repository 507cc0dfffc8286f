"""The baseline graph: every activation of the uncovered image that is read around an updated region or that a change is added to.

Each is a table of rows, a cell a row, channels last, as the incremental graph (``rewrite``) takes it.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emission.index import PAD_ROWS
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.quantised import INTEGERS, zero_point
from kcompiler.passes.plan import Plan
from kcompiler.runtime.bundle.manifest import TABLE


def table_shape(plan: Plan, name: str) -> list[int]:
    """[rows, C] of the table of a cached value: its cells, then the rows of padding."""
    if name in plan.frozen:
        return [1 + PAD_ROWS, plan.frozen[name]]
    region = plan.regions[name]
    return [region.y.size * region.x.size + PAD_ROWS, region.channels]


def table_type(value: gs.Tensor) -> np.dtype:
    """Of the numbers in the table of a value of the source: its own if it is quantised, else float32."""
    return np.dtype(value.dtype) if value.dtype in INTEGERS else np.dtype(np.float32)


def baseline_graph(source: gs.Graph, plan: Plan, cached: tuple[str, ...]) -> gs.Graph:
    """The source graph for one image, cut to what gives the ``cached`` values, as rows [H * W + 2, C].

    The last two rows are what windows read outside the map: zeros (convolution) and the lowest float (max pooling). Of quantised
    values that are the zero point and the lowest integer.
    """
    graph = source.copy()
    graph.outputs = []
    tensors = graph.tensors()
    zero_points = {name: zero_point(tensors[name]) or 0 for name in cached}
    emit = Emitter(graph)
    for name in cached:
        shape = table_shape(plan, name)
        value = tensors[name]
        if value.dtype == np.bool_:
            value = emit("Cast", value, to=TensorProto.FLOAT, name=f"{name}/numbers")
        rows_already = name in plan.frozen or plan.regions[name].last  # a gate has but one cell
        # Integers become rows before they are dequantised: ONNX Runtime quantises again what is transposed behind.
        made = next((node for node in value.inputs if node.op == "DequantizeLinear" and name in plan.regions), None)
        given = value if made is None else made.inputs[0]
        last = given if rows_already else emit("Transpose", given, perm=[0, 2, 3, 1], name=f"{name}/last")
        rows = emit("Reshape", last, emit.int64([-1, shape[1]]), name=f"{name}/rows")
        if made is not None:
            rows = emit("DequantizeLinear", rows, *made.inputs[1:], name=f"{name}/numbers")
        kind = table_type(value)
        pads = np.zeros((PAD_ROWS, shape[1]), kind)
        pads[0] = zero_points[name]
        pads[1] = np.iinfo(kind).min if kind in INTEGERS else np.finfo(kind).min
        table = emit("Concat", rows, emit.constant(pads, f"pads/{shape[1]}"), axis=0, name=TABLE + name)
        table.dtype, table.shape = kind, shape
        graph.outputs.append(table)
    return graph.cleanup()
