"""Removes expansions of constants to the batch: positional embeddings added to a map, coordinates concatenated with it.

Exporters expand such constants to the map's size, which depends on the batch, or with the batch size of their sample image.
Region rules support the constant itself.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import subgraphs
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.normalising.context import Context
from kcompiler.passes.regions.cells import MERGES

EXPANDED = ("Expand", "ConstantOfShape")


def drop_expands(graph: gs.Graph, context: Context) -> bool:
    """Removes expansions whose readers broadcast, or can be rewritten to. Requires inferred shapes.

    Returns whether shapes must be inferred anew.
    """
    if any(subgraphs(graph)):
        return False
    emit = Emitter(graph)
    changed = False
    for node in list(graph.nodes):
        for value in list(node.inputs):
            source = _expanded_from(emit, value)
            if source is not None and node.op in MERGES:
                changed |= _broadcast(node, value, source)
            elif isinstance(source, gs.Constant) and node.op == "Concat":
                changed |= _broadcast_channels(emit, node, value, source) or _expand_rows(emit, node, value)
    graph.cleanup().toposort()
    return changed


def _expanded_from(emit: Emitter, value: gs.Tensor) -> gs.Tensor | None:
    """The value that ``value`` expands: itself if it is a constant, None if it is not expanded."""
    if isinstance(value, gs.Constant):
        return value
    if not value.inputs or value.inputs[0].op not in EXPANDED:
        return None
    node = value.inputs[0]
    if node.op == "Expand":
        return node.inputs[0]
    number = node.attrs["value"].values if "value" in node.attrs else np.zeros(1, np.float32)
    return emit.constant(np.asarray(number).reshape(1, 1, 1, 1))


def _broadcast(node: gs.Node, value: gs.Tensor, source: gs.Tensor) -> bool:
    """Removes the expansion of an operand of an elementwise operator, where another operand has the shape of the result."""
    result = node.outputs[0]
    others = [other for other in node.inputs if other is not value]
    if value is source or not _is_map(result) or not any(_is_map(other) and other.shape == result.shape for other in others):
        return False
    node.inputs = [source if operand is value else operand for operand in node.inputs]
    return True


def _broadcast_channels(emit: Emitter, concat: gs.Node, value: gs.Tensor, source: gs.Constant) -> bool:
    """Replaces expanded constant channels of a Concat by Where(true, constant, a channel of a map), which has the batch size."""
    axis, maps = concat.attrs["axis"] % 4, [part for part in concat.inputs if _is_map(part) and not _is_expanded(part)]
    if axis not in (1, 3) or not maps or len(value.shape or ()) != 4 or len(source.shape) > 4:
        return False
    across = [2, 3] if axis == 1 else [1, 2]
    if [value.shape[a] for a in across] != [maps[0].shape[a] for a in across] or value.shape[0] not in (1, maps[0].shape[0]):
        return False
    if np.prod(source.shape) == 1:  # a scalar for all channels
        shape = [1 if a != axis else value.shape[axis] for a in range(4)]
        source = emit.constant(np.broadcast_to(np.asarray(source.values).reshape(()), shape))
    if ([1] * 4 + list(source.shape))[axis - 4] != value.shape[axis]:
        return False
    channel = emit("Slice", maps[0], emit.int64([0]), emit.int64([1]), emit.int64([axis]))
    chosen = emit("Where", emit.constant(np.ones((1, 1, 1, 1), np.bool_)), source, channel)
    channel.dtype, chosen.dtype = maps[0].dtype, maps[0].dtype
    concat.inputs = [chosen if part is value else part for part in concat.inputs]
    return True


def _expand_rows(emit: Emitter, concat: gs.Node, value: gs.Tensor) -> bool:
    """Expands a constant of batch size 1 in a Concat of rows to the free batch."""
    batch, rank = emit.graph.inputs[0].shape[0], len(value.shape or ())
    if not isinstance(value, gs.Constant) or isinstance(batch, int) or rank < 2 or concat.attrs["axis"] % rank == 0:
        return False
    if value.shape[0] != 1 or all(isinstance(other, gs.Constant) for other in concat.inputs):
        return False
    size = emit("Concat", emit("Shape", emit.graph.inputs[0], start=0, end=1), emit.int64([1] * (rank - 1)), axis=0)
    expanded = emit("Expand", value, size)
    expanded.dtype = value.dtype
    concat.inputs = [expanded if part is value else part for part in concat.inputs]
    return True


def _is_expanded(value: gs.Tensor) -> bool:
    return any(node.op in EXPANDED for node in value.inputs)


def _is_map(value: gs.Tensor) -> bool:
    """Whether the value has four axes, of which only the batch is symbolic."""
    shape = value.shape
    return isinstance(value, gs.Variable) and shape is not None and [isinstance(s, str) for s in shape] == [True, *[False] * 3]
