"""Expands to the size of a map, batch included: of constants, as positions and coordinates are added to a map or put beside it.

Their size follows from the batch, so that they are no constants; what they are expanded from often is.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.batch import subgraphs
from kcompiler.passes.emit import Emitter
from kcompiler.passes.rules.cells import MERGES


def drop_expands(graph: gs.Graph) -> None:
    """Takes Expands out where what reads them expands by itself, or can be told to. Requires inferred shapes."""
    if any(subgraphs(graph)):
        return
    emit = Emitter(graph)
    for node in [node for node in graph.nodes if node.op == "Expand"]:
        for reader in list(node.outputs[0].outputs):
            if reader.op in MERGES:
                _broadcast(node, reader)
            elif reader.op == "Concat" and isinstance(node.inputs[0], gs.Constant):
                _beside(emit, node, reader)
    graph.cleanup().toposort()


def _broadcast(expand: gs.Node, reader: gs.Node) -> None:
    """Arithmetic with a map that is as large as the result: it expands the other operand itself."""
    expanded, result = expand.outputs[0], reader.outputs[0].shape
    others = [value for value in reader.inputs if value is not expanded]
    if _is_map(reader.outputs[0]) and any(_is_map(value) and value.shape == result for value in others):
        reader.inputs = [expand.inputs[0] if value is expanded else value for value in reader.inputs]


def _beside(emit: Emitter, expand: gs.Node, reader: gs.Node) -> None:
    """Channels beside those of a map: chosen, whatever the image, over one channel of that map, which has the batch's size."""
    constant, expanded, axis = expand.inputs[0], expand.outputs[0], reader.attrs["axis"] % 4
    maps = [value for value in reader.inputs if _is_map(value) and not any(n.op == "Expand" for n in value.inputs)]
    if axis not in (1, 3) or not maps or not _is_map(expanded) or len(constant.shape) > 4:
        return
    channels = ([1] * 4 + list(constant.shape))[axis - 4]
    if channels != expanded.shape[axis] or any(maps[0].shape[a] != expanded.shape[a] for a in range(4) if a != axis):
        return
    one = emit("Slice", maps[0], emit.int64([0]), emit.int64([1]), emit.int64([axis]))
    one.dtype, one.shape = maps[0].dtype, [size if a != axis else 1 for a, size in enumerate(maps[0].shape)]
    chosen = emit("Where", emit.constant(np.ones((1, 1, 1, 1), np.bool_)), constant, one)
    chosen.dtype, chosen.shape = expanded.dtype, list(expanded.shape)
    reader.inputs = [chosen if value is expanded else value for value in reader.inputs]


def _is_map(value: gs.Tensor) -> bool:
    """Whether the value has four axes, of which the batch alone is open."""
    shape = value.shape
    return isinstance(value, gs.Variable) and shape is not None and [isinstance(s, str) for s in shape] == [True, *[False] * 3]
