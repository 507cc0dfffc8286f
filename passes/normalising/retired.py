"""Retired operators: ONNX Runtime still runs them in old models, but the ONNX version converter does not support them.

Each is replaced, before conversion, by operators of all opsets: same outputs as ONNX Runtime's kernels, except for rounding.
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
"""The first opset with numpy broadcasting in arithmetic."""


def without_retired(model: onnx.ModelProto, context: Context) -> onnx.ModelProto:
    """The model with retired operators replaced; ``model`` itself where there is none."""
    if not NUMPY_BROADCAST <= opset_of(model) < CENTRED_FROM or not any(node.op_type in REWRITES for node in model.graph.node):
        return model
    graph = gs.import_onnx(model)
    replace_retired(graph, context.values)
    exported: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False, ir_version=model.ir_version)
    return exported


def replace_retired(graph: gs.Graph, load: Load) -> bool:
    """Replaces the operators of ``REWRITES`` where the rewrite applies. Returns whether any was replaced.

    Args:
        graph: of an opset before 10.
        load: returns the values of a constant, which may be stored in an external file.
    """
    emit = Emitter(graph)
    changed = False
    for node in [node for node in graph.nodes if node.op in REWRITES and node.domain in (None, "", "ai.onnx")]:
        result = REWRITES[node.op](emit, node, load)
        if result is None:
            continue
        output = node.outputs[0]
        node.outputs.clear()
        graph.nodes.append(gs.Node("Identity", emit.fresh(f"{node.name or node.op}/result"), inputs=[result], outputs=[output]))
        changed = True
    if changed:
        graph.cleanup().toposort()
    return changed


def _elementwise_normalisation(emit: Emitter, node: gs.Node, load: Load) -> gs.Tensor | None:
    """BatchNormalization with spatial=0: a scale and a shift for each element of the map."""
    if node.attrs.get("spatial", 1) or not all(isinstance(value, gs.Constant) for value in node.inputs[1:]):
        return None
    scale, shift, mean, variance = (np.asarray(load(value), np.float32) for value in node.inputs[1:5])
    factor = scale / np.sqrt(variance + np.float32(node.attrs.get("epsilon", 1e-5)))
    offset = shift - mean * factor
    return emit("Add", emit("Mul", node.inputs[0], emit.constant(factor)), emit.constant(offset))


def _image_scaler(emit: Emitter, node: gs.Node, load: Load) -> gs.Tensor:
    """ImageScaler: a common scale, then a bias per channel."""
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
    "BatchNormalization": _elementwise_normalisation,
    "ImageScaler": _image_scaler,
    "Affine": _affine,
    "ScaledTanh": _scaled_tanh,
    "ParametricSoftplus": _parametric_softplus,
}
