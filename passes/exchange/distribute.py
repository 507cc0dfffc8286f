"""Distributing the only readers of a channel Concat over its inputs, where less data is then brought to the union region.

A 1x1 convolution to few channels becomes a sum of convolutions of the inputs: it is linear across channels, so only the order of
summation changes. A pool to fewer cells becomes pools of the inputs with the Concat behind them; each channel is unchanged. The
inputs are then read on their own smaller regions, in their own row order, and not gathered on the union region and copied.

Requires a normalised graph. Ensures: the same outputs except for rounding, under the same names.
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
"""Least ratio of the Concat's channels to the channels to sum: to gather an element on another region and to add it takes about
9 passes over it, to concatenate it 4."""


def convolve_before_joining(graph: gs.Graph, kept: Collection[str]) -> bool:
    """Removes each Concat that only such convolutions read, except where it or a reader is named in ``kept``."""
    emit = Emitter(graph)
    joins = [node for node in graph.nodes if _distributes(graph, node, kept)]
    for join in joins:
        for conv in list(join.outputs[0].outputs):
            _distribute(emit, join, conv)
    return bool(joins)


def pool_before_joining(graph: gs.Graph, kept: Collection[str]) -> bool:
    """Moves each Concat behind the pool to fewer cells that is its only reader, except for nodes in ``kept``."""
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
    """Whether ``pool`` is the only reader of a channel Concat and leaves at most half of its cells."""
    if pool.op not in ("MaxPool", "AveragePool", "LpPool") or len(pool.outputs) != 1:
        return False
    if not halves_alone(graph, pool):
        return False
    (join,) = pool.inputs[0].inputs
    return _joins_channels(join) and not {pool.name, join.name} & {*kept}


def _joins_channels(join: gs.Node) -> bool:
    """Whether ``join`` is a Concat of at least two maps along the channels."""
    if join.op != "Concat" or len(join.inputs) < 2:
        return False
    shapes = [value.shape for value in join.inputs]
    if any(shape is None or len(shape) < 3 or not isinstance(shape[1], int) for shape in shapes):
        return False
    return join.attrs["axis"] in (1, 1 - len(shapes[0]))


def _distributes(graph: gs.Graph, join: gs.Node, kept: Collection[str]) -> bool:
    """Whether ``join`` is a channel Concat whose readers are all 1x1 convolutions to far fewer channels."""
    if not _joins_channels(join) or join.name in kept or is_output(graph, join.outputs[0]):
        return False
    convs = join.outputs[0].outputs
    if not convs or not all(across_channels(conv, join.outputs[0]) and conv.name not in kept for conv in convs):
        return False
    summed = len(join.inputs) * sum(conv.inputs[1].shape[0] for conv in convs)
    return bool(FEWER * summed <= sum(value.shape[1] for value in join.inputs))


def _distribute(emit: Emitter, join: gs.Node, conv: gs.Node) -> None:
    """Replaces ``conv`` of the Concat ``join`` by a sum of convolutions of its inputs; the first of them has the bias."""
    output, weights, bias = conv.outputs[0], conv.inputs[1], conv.inputs[2:]
    ends = np.cumsum([0, *(part.shape[1] for part in join.inputs)])
    convolved = []
    for part, (first, last) in zip(join.inputs, pairwise(ends), strict=True):
        slice_weights = emit.constant(np.ascontiguousarray(np.asarray(weights.values)[:, first:last]), f"{weights.name}/part")
        convolved.append(_node(emit, "Conv", f"{conv.name}/part", [part, slice_weights, *bias], output, conv.attrs))
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
    """The output, with the type and shape of ``like``, of a new node."""
    value = gs.Variable(emit.fresh(name), like.dtype, like.shape)
    emit.graph.nodes.append(gs.Node(operator, value.name, dict(attributes), list(inputs), [value]))
    return value
