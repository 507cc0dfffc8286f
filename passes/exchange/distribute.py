"""Distributing: what alone reads a Concat of channels works on its parts, where that leaves less to bring to one region and join.

1x1 convolutions to few channels are summed behind: they are linear across channels, so that only the order of the sum changes.
Pools to fewer cells are joined behind, each channel as it was. The parts are not brought to one region and copied side by side,
each is read on the smaller region that is its own, in the order that its rows are in.

Requires a normalised graph. Ensures: the same outputs but for rounding, under the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.exchange.linear import across_channels, halves_alone
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import is_output

FEWER = 2
"""Times that the channels of the parts outnumber those to sum: bringing a number to another region and adding it takes about
9 passes over it, joining it with others 4."""


def convolve_before_joining(graph: gs.Graph, kept: Collection[str]) -> bool:
    """Every such Concat goes, but for those of the names ``kept`` and those that such nodes read."""
    emit = Emitter(graph)
    joins = [node for node in graph.nodes if _distributes(graph, node, kept)]
    for join in joins:
        for conv in list(join.outputs[0].outputs):
            _distribute(emit, join, conv)
    return bool(joins)


def pool_before_joining(graph: gs.Graph, kept: Collection[str]) -> bool:
    """Every Concat goes behind the pool to fewer cells that alone reads it. Pairs with a node in ``kept`` stay."""
    emit = Emitter(graph)
    pools = [node for node in graph.nodes if _joins_behind(graph, node, kept)]
    for pool in pools:
        (join,) = pool.inputs[0].inputs
        output = pool.outputs[0]
        pool.outputs = []
        pooled = [_node(emit, pool.op, f"{pool.name}/part", [part], output, pool.attrs) for part in join.inputs]
        for part, value in zip(join.inputs, pooled, strict=True):
            value.shape = [*part.shape[:2], *output.shape[2:]]
        join.inputs, join.outputs = pooled, [output]
    return bool(pools)


def _joins_behind(graph: gs.Graph, pool: gs.Node, kept: Collection[str]) -> bool:
    """Whether ``pool`` leaves at most half the cells of a Concat of channels that nothing else reads."""
    if pool.op not in ("MaxPool", "AveragePool", "LpPool") or len(pool.outputs) != 1:
        return False
    if not halves_alone(graph, pool):
        return False
    (join,) = pool.inputs[0].inputs
    return _joins_channels(join) and not {pool.name, join.name} & {*kept}


def _joins_channels(join: gs.Node) -> bool:
    """Whether ``join`` is a Concat of several maps, channels after channels."""
    if join.op != "Concat" or len(join.inputs) < 2:
        return False
    shapes = [value.shape for value in join.inputs]
    if any(shape is None or len(shape) < 3 or not isinstance(shape[1], int) for shape in shapes):
        return False
    return join.attrs["axis"] in (1, 1 - len(shapes[0]))


def _distributes(graph: gs.Graph, join: gs.Node, kept: Collection[str]) -> bool:
    """Whether ``join`` is a Concat of channels, and only 1x1 convolutions to far fewer channels read it."""
    if not _joins_channels(join) or join.name in kept or is_output(graph, join.outputs[0]):
        return False
    convs = join.outputs[0].outputs
    if not convs or not all(across_channels(conv, join.outputs[0]) and conv.name not in kept for conv in convs):
        return False
    summed = len(join.inputs) * sum(conv.inputs[1].shape[0] for conv in convs)
    return bool(FEWER * summed <= sum(value.shape[1] for value in join.inputs))


def _distribute(emit: Emitter, join: gs.Node, conv: gs.Node) -> None:
    """The first part's convolution has the bias."""
    output, weights, bias = conv.outputs[0], conv.inputs[1], conv.inputs[2:]
    ends = np.cumsum([0, *(part.shape[1] for part in join.inputs)])
    convolved = []
    for part, (first, last) in zip(join.inputs, pairwise(ends), strict=True):
        taken = emit.constant(np.ascontiguousarray(np.asarray(weights.values)[:, first:last]), f"{weights.name}/part")
        convolved.append(_node(emit, "Conv", f"{conv.name}/part", [part, taken, *bias], output, conv.attrs))
        bias = []
    conv.outputs = []
    total = convolved[0]
    for part in convolved[1:]:
        total = _node(emit, "Add", f"{conv.name}/sum", [total, part], output, {})
    (last_sum,) = total.inputs
    last_sum.outputs = [output]


def _node(
    emit: Emitter, operator: str, name: str, inputs: Sequence[gs.Tensor], like: gs.Tensor, attributes: Mapping[str, object]
) -> gs.Variable:
    """The output of a new node, of the type and shape of ``like``."""
    value = gs.Variable(emit.fresh(name), like.dtype, like.shape)
    emit.graph.nodes.append(gs.Node(operator, value.name, dict(attributes), list(inputs), [value]))
    return value
