"""The baseline graph: it computes the cached activations, on the uncovered image, that the incremental graph (``rewrite``) reads.

Those are the activations read around an updated region, and those to which a change is added. Each is a table with one row per
cell, channels last.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emission.index import PAD_ROWS
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.quantised import INTEGERS, zero_point
from kcompiler.passes.graphs.values import copied
from kcompiler.passes.plan import Plan
from kcompiler.runtime.bundle.manifest import TABLE


def table_shape(plan: Plan, name: str) -> list[int]:
    """The shape [rows, C] of the table of a cached value: a row per cell, then the padding rows."""
    if name in plan.frozen:
        return [1 + PAD_ROWS, plan.frozen[name]]
    region = plan.regions[name]
    return [region.y.size * region.x.size + PAD_ROWS, region.channels]


def table_type(value: gs.Tensor) -> np.dtype:
    """The element type of the table of a source value: its own if it is quantised, else float32."""
    return np.dtype(value.dtype) if value.dtype in INTEGERS else np.dtype(np.float32)


def baseline_graph(source: gs.Graph, plan: Plan, cached: tuple[str, ...]) -> gs.Graph:
    """The source graph for one image, cut to the nodes that compute the ``cached`` values; outputs are tables [H * W + 2, C].

    The last two rows are the padding: zeros (convolution) and the lowest float (max pooling), or for quantised values the zero
    point and the lowest integer.
    """
    graph = copied(source)
    graph.outputs = []
    tensors = graph.tensors()
    zero_points = {name: zero_point(tensors[name]) or 0 for name in cached}
    emit = Emitter(graph)
    for name in cached:
        shape = table_shape(plan, name)
        value = tensors[name]
        if value.dtype == np.bool_:
            value = emit("Cast", value, to=TensorProto.FLOAT, name=f"{name}/numbers")
        channels_last = name in plan.frozen or plan.regions[name].last  # a gate has a single cell, so its order does not matter
        # Integers are transposed before they are dequantised: ONNX Runtime quantises a Transpose behind DequantizeLinear again.
        dequantise = next((node for node in value.inputs if node.op == "DequantizeLinear" and name in plan.regions), None)
        source_value = value if dequantise is None else dequantise.inputs[0]
        last = source_value if channels_last else emit("Transpose", source_value, perm=[0, 2, 3, 1], name=f"{name}/last")
        rows = emit("Reshape", last, emit.int64([-1, shape[1]]), name=f"{name}/rows")
        if dequantise is not None:
            rows = emit("DequantizeLinear", rows, *dequantise.inputs[1:], name=f"{name}/numbers")
        dtype = table_type(value)
        pads = np.zeros((PAD_ROWS, shape[1]), dtype)
        pads[0] = zero_points[name]
        pads[1] = np.iinfo(dtype).min if dtype in INTEGERS else np.finfo(dtype).min
        table = emit("Concat", rows, emit.constant(pads, f"pads/{shape[1]}"), axis=0, name=TABLE + name)
        table.dtype, table.shape = dtype, shape
        graph.outputs.append(table)
    return graph.cleanup()
