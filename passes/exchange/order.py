"""The order of the exchange passes: from a normalised graph to one whose regions are cheaper to recompute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import onnx_graphsurgeon as gs

from kcompiler.passes.exchange.blocks import fill_blocks
from kcompiler.passes.exchange.commute import convolve_before_pooling, pool_before_convolving
from kcompiler.passes.exchange.distribute import convolve_before_joining, pool_before_joining
from kcompiler.passes.graphs.values import copied

Exchange = Callable[[gs.Graph, Collection[str]], bool]
"""Rewrites a topologically sorted graph of known shapes in place, except for nodes with the given names; returns whether it did.

A pass must set the shapes of new values: shape inference would need a proto with all weights in it.
"""
EXCHANGE: Sequence[Exchange] = (
    pool_before_convolving,
    convolve_before_pooling,
    pool_before_joining,
    convolve_before_joining,
    fill_blocks,
)


def exchanged(graph: gs.Graph, kept: Collection[str] = (), passes: Sequence[Exchange] = EXCHANGE) -> gs.Graph:
    """A rewritten copy of ``graph``, same outputs except for rounding under the same names; ``graph`` itself if no pass applies.

    Args:
        graph: normalised.
        kept: names of nodes that must not be rewritten.
        passes: in order.
    """
    copy, changed = copied(graph), False
    for rewrite in passes:
        if rewrite(copy, kept):
            copy.cleanup().toposort()
            changed = True
    return copy if changed else graph
