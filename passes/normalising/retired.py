"""Operators that ONNX Runtime still runs in old models, but that the ONNX converter does not carry to a later opset.

Each is written as standard operators of any opset, before conversion: the numbers of ONNX Runtime's kernels but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.normalising.context import Context
from kcompiler.passes.normalising.convert import CENTRED_FROM, opset_of
from kcompiler.passes.normalising.fold import Load

Rewrite = Callable[[Emitter, gs.Node, Load], gs.Tensor | None]
NUMPY_BROADCAST = 7
"""The first opset whose arithmetic broadcasts as numpy does."""


def without_retired(model: onnx.ModelProto, context: Context) -> onnx.ModelProto:
    """The model with standard operators for those that the converter to a later opset does not know."""
    if not NUMPY_BROADCAST <= opset_of(model) < CENTRED_FROM or not any(node.op_type in REWRITES for node in model.graph.node):
        return model
    graph = gs.import_onnx(model)
    replace_retired(graph, context.values)
    exported: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False, ir_version=model.ir_version)
    return exported


def replace_retired(graph: gs.Graph, load: Load) -> bool:
    """Replaces the operators of ``REWRITES`` where they apply. Returns whether there was any.

    Args:
        graph: of an opset before 10.
        load: the numbers of a constant, which may lie in a file.
    """
    emit = Emitter(graph)
    found = False
    for node in [node for node in graph.nodes if node.op in REWRITES and node.domain in (None, "", "ai.onnx")]:
        result = REWRITES[node.op](emit, node, load)
        if result is None:
            continue
        output = node.outputs[0]
        node.outputs.clear()
        graph.nodes.append(gs.Node("Identity", emit.fresh(f"{node.name or node.op}/result"), inputs=[result], outputs=[output]))
        found = True
    if found:
        graph.cleanup().toposort()
    return found


def _normalisation_by_cell(emit: Emitter, node: gs.Node, load: Load) -> gs.Tensor | None:
    """BatchNormalization with spatial=0: a scale and a shift for each cell of each channel."""
    if node.attrs.get("spatial", 1) or not all(isinstance(value, gs.Constant) for value in node.inputs[1:]):
        return None
    scale, shift, mean, variance = (np.asarray(load(value), np.float32) for value in node.inputs[1:5])
    factor = scale / np.sqrt(variance + np.float32(node.attrs.get("epsilon", 1e-5)))
    offset = shift - mean * factor
    return emit("Add", emit("Mul", node.inputs[0], emit.constant(factor)), emit.constant(offset))


def _image_scaler(emit: Emitter, node: gs.Node, load: Load) -> gs.Tensor:
    """Pixels scaled alike, then a number added to each channel."""
    bias = np.asarray(node.attrs["bias"], np.float32).reshape(-1, 1, 1)
    return emit("Add", _times(emit, node.inputs[0], node.attrs.get("scale", 1.0)), emit.constant(bias))


def _affine(emit: Emitter, node: gs.Node, load: Load) -> gs.Tensor:
    scaled = _times(emit, node.inputs[0], node.attrs.get("alpha", 1.0))
    return emit("Add", scaled, emit.constant(np.asarray(node.attrs.get("beta", 0.0), np.float32)))


def _scaled_tanh(emit: Emitter, node: gs.Node, load: Load) -> gs.Tensor:
    inner = _times(emit, node.inputs[0], node.attrs.get("beta", 1.0))
    return _times(emit, emit("Tanh", inner), node.attrs.get("alpha", 1.0))


def _parametric_softplus(emit: Emitter, node: gs.Node, load: Load) -> gs.Tensor:
    inner = _times(emit, node.inputs[0], node.attrs.get("beta", 1.0))
    return _times(emit, emit("Softplus", inner), node.attrs.get("alpha", 1.0))


def _times(emit: Emitter, value: gs.Tensor, number: float) -> gs.Variable:
    return emit("Mul", value, emit.constant(np.asarray(number, np.float32)))


REWRITES: dict[str, Rewrite] = {
    "BatchNormalization": _normalisation_by_cell,
    "ImageScaler": _image_scaler,
    "Affine": _affine,
    "ScaledTanh": _scaled_tanh,
    "ParametricSoftplus": _parametric_softplus,
}
