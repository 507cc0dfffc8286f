"""The order of exchanges: from a normalised graph to one whose regions are cheaper to recompute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import onnx_graphsurgeon as gs

from kcompiler.passes.exchange.blocks import fill_blocks
from kcompiler.passes.exchange.commute import convolve_before_pooling, pool_before_convolving
from kcompiler.passes.exchange.distribute import convolve_before_joining, pool_before_joining

Exchange = Callable[[gs.Graph, Collection[str]], bool]
"""Rewrites a topologically sorted graph of known shapes, in place, but for nodes of some names; returns whether it changed.

New values have shapes: to infer them anew would take a proto with all weights in it.
"""
EXCHANGE: Sequence[Exchange] = (
    pool_before_convolving,
    convolve_before_pooling,
    pool_before_joining,
    convolve_before_joining,
    fill_blocks,
)


def exchanged(graph: gs.Graph, kept: Collection[str] = (), passes: Sequence[Exchange] = EXCHANGE) -> gs.Graph:
    """A copy of ``graph`` with the same outputs but for rounding, under the same names; ``graph`` itself if nothing changes.

    Args:
        graph: normalised.
        kept: names of nodes that stay.
        passes: in order.
    """
    copy, changed = graph.copy(), False
    for one in passes:
        if one(copy, kept):
            copy.cleanup().toposort()
            changed = True
    return copy if changed else graph
