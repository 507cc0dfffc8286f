"""Commuting an average pool and a 1x1 convolution, where one is the only reader of the other, into the order with less work.

Both are linear, the pool across cells, the convolution across channels, so their order only affects rounding. A pool that
reduces the number of cells goes before the convolution, which then computes fewer cells. A pool that keeps it goes behind a
convolution to fewer channels. That saves part of the convolution's work, too: the region is smaller before the pool.

Requires a normalised graph. Ensures: the same outputs except for rounding, under the same names.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.exchange.linear import across_channels, halves_alone
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import has_one_reader

FEWEST_CHANNELS = 32
"""Least output channels of a convolution for a pool to go before it: pooling its input takes about the time of so many."""


def convolve_before_pooling(graph: gs.Graph, kept: Collection[str]) -> bool:
    """Moves 1x1 convolutions to fewer channels before the pool whose only reader they are, except for nodes in ``kept``."""
    changed = False
    for pool in list(graph.nodes):
        if _pair(graph, pool, kept):
            _exchange(graph, pool, pool.outputs[0].outputs[0])
            changed = True
    return changed


def _pair(graph: gs.Graph, pool: gs.Node, kept: Collection[str]) -> bool:
    """Whether ``pool`` is an average pool that keeps the map's size and whose only reader is a 1x1 Conv to fewer channels."""
    if pool.op != "AveragePool" or any(stride != 1 for stride in pool.attrs.get("strides") or [1]):
        return False
    pooled = pool.outputs[0]
    before, after = pool.inputs[0].shape, pooled.shape
    if before is None or after is None or before[2:] != after[2:]:  # the convolution would have more cells to compute
        return False
    if not has_one_reader(graph, pooled):
        return False
    conv = pooled.outputs[0]
    return (
        not {conv.name, pool.name} & {*kept}
        and across_channels(conv, pooled)
        and all(stride == 1 for stride in conv.attrs.get("strides") or [1])
        and conv.inputs[1].shape[0] < conv.inputs[1].shape[1]
    )


def pool_before_convolving(graph: gs.Graph, kept: Collection[str]) -> bool:
    """Moves pools to fewer cells before the 1x1 convolution whose only reader they are, except for nodes in ``kept``."""
    emit = Emitter(graph)
    pools = [node for node in graph.nodes if _shrinks(graph, node, kept)]
    for pool in pools:
        (conv,) = pool.inputs[0].inputs
        output = pool.outputs[0]
        shape = [output.shape[0], conv.inputs[1].shape[1], *output.shape[2:]]
        pooled = gs.Variable(emit.fresh(f"{output.name}/channels"), output.dtype, shape)
        pool.inputs, pool.outputs = [conv.inputs[0]], [pooled]
        conv.inputs[0], conv.outputs = pooled, [output]
    return bool(pools)


def _shrinks(graph: gs.Graph, pool: gs.Node, kept: Collection[str]) -> bool:
    """Whether ``pool`` is the only reader of a 1x1 convolution and averages to at most half as many cells."""
    if pool.op not in ("AveragePool", "GlobalAveragePool"):
        return False
    if not halves_alone(graph, pool):
        return False
    (conv,) = pool.inputs[0].inputs
    if {conv.name, pool.name} & {*kept}:
        return False
    if not across_channels(conv, conv.inputs[0]) or any(stride != 1 for stride in conv.attrs.get("strides") or [1]):
        return False
    if conv.inputs[1].shape[0] < FEWEST_CHANNELS:
        return False
    # Behind the convolution, padding that counts is zero. Pooled before it, it would get the bias.
    counted = pool.attrs.get("count_include_pad") and (any(pool.attrs.get("pads") or [0]) or pool.attrs.get("ceil_mode"))
    return len(conv.inputs) == 2 or not counted


def _exchange(graph: gs.Graph, pool: gs.Node, conv: gs.Node) -> None:
    """Moves ``conv`` before ``pool``; its bias becomes an Add behind the pool."""
    emit = Emitter(graph)
    output, bias = conv.outputs[0], conv.inputs[2:]
    convolved = gs.Variable(emit.fresh(f"{output.name}/unpooled"), output.dtype)
    convolved.shape = [*output.shape[:2], *pool.inputs[0].shape[2:]] if output.shape is not None else None
    pooled = pool.outputs[0]
    conv.inputs = [pool.inputs[0], conv.inputs[1]]
    conv.outputs = [convolved]
    pool.inputs = [convolved]
    pooled.shape = output.shape
    if not bias:
        pool.outputs = [output]
        return
    # The bias is added behind the pool: a pool that counts padding would reduce it at the borders.
    values = np.asarray(bias[0].values).reshape(-1, *[1] * (len(conv.inputs[1].shape) - 2))
    constant = gs.Constant(emit.fresh(f"{bias[0].name}/channels"), values)
    graph.nodes.append(gs.Node("Add", emit.fresh(f"{conv.name}/bias"), inputs=[pooled, constant], outputs=[output]))
