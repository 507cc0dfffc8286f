"""Canonical forms: rewrites the various forms that exporters emit to the form that region rules support.

Requires a graph with inferred shapes. Ensures: the same outputs; a Split is replaced by Slices, the sizes of reshaped and resized
maps are constants where shape inference knows them, chains of reshapes from map to map are replaced by the equivalent operator
(``reshapes``), and unread further outputs are removed.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import subgraphs
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import is_output, known_sizes
from kcompiler.passes.normalising.context import Context
from kcompiler.passes.normalising.reshapes import straighten

FURTHER_OUTPUTS = ("LayerNormalization", "MaxPool", "Dropout")
"""Operators whose outputs after the first are optional."""


def canonical(graph: gs.Graph, context: Context) -> bool:
    """Rewrites to canonical forms. Changes no shapes. A graph with bodies (If, Loop) is unchanged, since it runs whole."""
    if any(subgraphs(graph)):
        return False
    emit = Emitter(graph)
    for node in list(graph.nodes):
        if node.op == "Split":
            _split(emit, node)
        elif node.op == "Reshape":
            _reshape(emit, node)
        elif node.op in FURTHER_OUTPUTS:
            _drop_unread(graph, node)
    straighten(graph, emit)
    return False


def _drop_unread(graph: gs.Graph, node: gs.Node) -> None:
    """Removes unread optional outputs (the means of a LayerNormalization): region rules require a single output."""
    while len(node.outputs) > 1 and not node.outputs[-1].outputs and not is_output(graph, node.outputs[-1]):
        node.outputs.pop()


def _split(emit: Emitter, node: gs.Node) -> None:
    """Replaces a Split with known sizes by a Slice for each output."""
    value, axis = node.inputs[0], node.attrs.get("axis", 0)
    inferred = [output.shape[axis] if output.shape is not None else None for output in node.outputs]
    sizes = [size for size in inferred if isinstance(size, int)]
    if len(sizes) != len(inferred):
        return
    ends = np.cumsum(np.array(sizes, np.int64)).tolist()
    for output, size, end in zip(list(node.outputs), sizes, ends, strict=True):
        limits = [emit.int64([number]) for number in (end - size, end, axis)]
        name = emit.fresh(f"{node.name or 'Split'}/slice")
        emit.graph.nodes.append(gs.Node("Slice", name, inputs=[value, *limits], outputs=[output]))
    node.outputs.clear()
    emit.graph.nodes.remove(node)


def free_resizes(graph: gs.Graph, context: Context) -> bool:
    """Restricts the ``sizes`` of Resizes to the axes that change, so that the batch stays free.

    Returns whether shapes must be inferred anew.
    """
    emit = Emitter(graph)
    resized = [_resize(emit, node) for node in graph.nodes if node.op == "Resize"]
    return any(resized)


def _resize(emit: Emitter, node: gs.Node) -> bool:
    by_sizes = len(node.inputs) > 3 and not node.inputs[3].is_empty()
    before, after = known_sizes(node.inputs[0].shape), known_sizes(node.outputs[0].shape)
    if not by_sizes or "axes" in node.attrs or before is None or after is None:
        return False
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    axes = [axis for axis, (old, new) in enumerate(zip(before, after, strict=True), start=1) if old != new] or [len(before)]
    node.attrs["axes"] = axes
    node.inputs = [node.inputs[0], node.inputs[1], gs.Variable.empty(), emit.int64([after[axis - 1] for axis in axes])]
    return True


def _reshape(emit: Emitter, node: gs.Node) -> None:
    """Replaces the computed shape of a Reshape by a constant, where inference knows all sizes but the batch."""
    shape, before = known_sizes(node.outputs[0].shape), node.inputs[0].shape
    if isinstance(node.inputs[1], gs.Constant) or shape is None or before is None:
        return
    if node.outputs[0].shape[0] == before[0] and 0 not in shape:
        node.inputs[1] = emit.int64([-1, *shape])
