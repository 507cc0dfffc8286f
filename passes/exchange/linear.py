"""Conditions on convolutions and pools that the exchange passes share."""

from __future__ import annotations

from math import prod

import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.values import has_one_reader, known_sizes


def across_channels(conv: gs.Node, value: gs.Tensor) -> bool:
    """Whether ``conv`` is an ungrouped 1x1 convolution of ``value`` with constant weights and no padding."""
    return (
        conv.op == "Conv"
        and conv.inputs[0] is value
        and all(isinstance(parameter, gs.Constant) for parameter in conv.inputs[1:])
        and conv.attrs.get("group", 1) == 1
        and prod(conv.inputs[1].shape[2:]) == 1
        and not any(conv.attrs.get("pads") or [0])
    )


def halves_alone(graph: gs.Graph, pool: gs.Node) -> bool:
    """Whether ``pool`` is the only reader of another node's output and leaves at most half as many cells."""
    value = pool.inputs[0]
    before, after = known_sizes(value.shape), known_sizes(pool.outputs[0].shape)
    if before is None or after is None or 2 * prod(after[1:]) > prod(before[1:]):
        return False
    return len(value.inputs) == 1 and has_one_reader(graph, value)
