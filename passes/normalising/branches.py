"""Branches that are known at compile time: an If whose condition is a constant is the branch that it takes.

Exporters leave conditions on sizes ("if the map has one channel, squeeze it") and on switches ("if training"). Once sizes are
known and switches bound they are constants, as far as the image, and the number of images, do not decide.
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
    """The model with each If whose branch is known replaced by that branch; ``model`` itself where there is none.

    Before conversion, which leaves the insides of bodies in the opset that they are in.
    """
    if not any(node.op_type == "If" for node in model.graph.node):
        return model
    graph, found = gs.import_onnx(context.inferred(model)), False
    while take_known_branches(graph, context.values):
        graph, found = context.inferred_anew(graph), True
    if not found:
        return model
    taken = gs.export_onnx(graph, do_type_check=False, ir_version=model.ir_version)
    return fold_by_runtime(taken, context.folder, context, "branches")


def take_known_branches(graph: gs.Graph, load: Load) -> bool:
    """Folds what does not depend on the image, and puts the branches taken in the place of their Ifs, also of those inside.

    Args:
        graph: topologically sorted, its shapes inferred as far as may be, of any opset.
        load: the numbers of a constant, which may lie in a file.

    Returns:
        whether it found any: then shapes must be inferred anew, after which there may be more.
    """
    found = fold_known(graph, load)
    emit = Emitter(graph, reserved={name for one in subgraphs(graph) for name in one.tensors()})
    for node in [node for node in graph.nodes if node.op == "If" and isinstance(node.inputs[0], gs.Constant)]:
        _inline(emit, node, taken=bool(np.asarray(load(node.inputs[0])).reshape(())))
        found = True
    graph.cleanup().toposort()
    return found


def _inline(emit: Emitter, node: gs.Node, *, taken: bool) -> None:
    """The nodes of a branch, under names of their own, and their outputs as those of the If."""
    branch, name = node.attrs["then_branch" if taken else "else_branch"], node.name or "If"
    outside = {id(tensor) for tensor in emit.graph.tensors().values()}
    for tensor in branch.tensors().values():
        made_here = any(maker is one for one in branch.nodes for maker in tensor.inputs)
        if made_here or (isinstance(tensor, gs.Constant) and id(tensor) not in outside):
            tensor.name = emit.fresh(f"{name}/{tensor.name}")
    for inner in branch.nodes:
        inner.name = f"{name}/{inner.name or inner.op}"
    nodes = list(branch.nodes)
    nodes += [
        gs.Node("Identity", f"{name}/taken_{place}", inputs=[given], outputs=[output])
        for place, (given, output) in enumerate(zip(list(branch.outputs), _detached(node), strict=True))
    ]
    place = next(number for number, one in enumerate(emit.graph.nodes) if one is node)
    node.inputs.clear()
    emit.graph.nodes = [*emit.graph.nodes[:place], *nodes, *emit.graph.nodes[place + 1 :]]


def _detached(node: gs.Node) -> list[gs.Tensor]:
    """The outputs of ``node``, which it makes no longer."""
    outputs = list(node.outputs)
    node.outputs.clear()
    return outputs
