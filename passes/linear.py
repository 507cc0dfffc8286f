"""What passes that reorder linear nodes ask of a convolution."""

from __future__ import annotations

from math import prod

import onnx_graphsurgeon as gs


def across_channels(conv: gs.Node, value: gs.Tensor) -> bool:
    """Whether ``conv`` multiplies the channels of each cell of ``value`` by a constant matrix, and reads nothing around it."""
    return (
        conv.op == "Conv"
        and conv.inputs[0] is value
        and all(isinstance(parameter, gs.Constant) for parameter in conv.inputs[1:])
        and conv.attrs.get("group", 1) == 1
        and prod(conv.inputs[1].shape[2:]) == 1
        and not any(conv.attrs.get("pads") or [0])
    )
