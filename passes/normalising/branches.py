"""Inlines the taken branch of each If whose condition is a constant at compile time.

Exporters emit conditions on sizes ("if the map has one channel, squeeze it") and on switches ("if training"). With known sizes
and bound inputs they are constants, unless they depend on the image or on the batch size.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import subgraphs
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.normalising.context import Context
from kcompiler.passes.normalising.fold import Load, fold_known
from kcompiler.passes.normalising.fold_by_runtime import fold_by_runtime


def without_known_branches(model: onnx.ModelProto, context: Context) -> onnx.ModelProto:
    """The model with each If of constant condition replaced by the taken branch; ``model`` itself where there is none.

    It must run before opset conversion, which does not convert the nodes of bodies.
    """
    if not any(node.op_type == "If" for node in model.graph.node):
        return model
    graph, changed = gs.import_onnx(context.inferred(model)), False
    while take_known_branches(graph, context.values):
        graph, changed = context.inferred_anew(graph), True
    if not changed:
        return model
    taken = gs.export_onnx(graph, do_type_check=False, ir_version=model.ir_version)
    return fold_by_runtime(taken, context.folder, context, "branches")


def take_known_branches(graph: gs.Graph, load: Load) -> bool:
    """Folds constants, and inlines the taken branch of each If with a constant condition.

    Args:
        graph: topologically sorted, its shapes inferred as far as possible, of any opset.
        load: returns the values of a constant, which may be stored in an external file.

    Returns:
        whether anything changed. Then shapes must be inferred anew, after which more may fold, such as an inner If.
    """
    changed = fold_known(graph, load)
    emit = Emitter(graph, reserved={name for body in subgraphs(graph) for name in body.tensors()})
    for node in [node for node in graph.nodes if node.op == "If" and isinstance(node.inputs[0], gs.Constant)]:
        _inline(emit, node, taken=bool(np.asarray(load(node.inputs[0])).reshape(())))
        changed = True
    graph.cleanup().toposort()
    return changed


def _inline(emit: Emitter, node: gs.Node, *, taken: bool) -> None:
    """Replaces an If by the renamed nodes of a branch, and an Identity for each of its outputs."""
    branch, name = node.attrs["then_branch" if taken else "else_branch"], node.name or "If"
    outside = {id(tensor) for tensor in emit.graph.tensors().values()}
    for tensor in branch.tensors().values():
        is_local = any(maker is inner for inner in branch.nodes for maker in tensor.inputs)
        if is_local or (isinstance(tensor, gs.Constant) and id(tensor) not in outside):
            tensor.name = emit.fresh(f"{name}/{tensor.name}")
    for inner in branch.nodes:
        inner.name = f"{name}/{inner.name or inner.op}"
    nodes = list(branch.nodes)
    nodes += [
        gs.Node("Identity", f"{name}/taken_{place}", inputs=[result], outputs=[output])
        for place, (result, output) in enumerate(zip(list(branch.outputs), _detached(node), strict=True))
    ]
    place = next(number for number, other in enumerate(emit.graph.nodes) if other is node)
    node.inputs.clear()
    emit.graph.nodes = [*emit.graph.nodes[:place], *nodes, *emit.graph.nodes[place + 1 :]]


def _detached(node: gs.Node) -> list[gs.Tensor]:
    """Detaches the outputs of ``node`` and returns them."""
    outputs = list(node.outputs)
    node.outputs.clear()
    return outputs
