"""What the final softmax or sigmoid reads becomes an output too: maps of it do not saturate where probabilities do."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_graphsurgeon as gs

SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
INTEGER_SQUASHING = ("QLinearSoftmax", "QLinearSigmoid")
PASSING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear")
"""Operators that change shapes or types alone."""


def expose_logits(graph: gs.Graph) -> str | None:
    """Makes the logits the second output of ``graph`` where its output is a softmax or sigmoid of them; returns their name.

    Between that operator and the output only the shape may change, so that logit k belongs to output k; or numbers become
    integers and numbers again. Logits that are integers are made numbers.
    """
    output = graph.outputs[0]
    value = output
    while len(value.inputs) == 1 and value.inputs[0].op in PASSING:
        value = value.inputs[0].inputs[0]
    if len(value.inputs) != 1 or value.inputs[0].op not in (*SQUASHING, *INTEGER_SQUASHING):
        return None
    squashing, read = value.inputs[0], value.inputs[0].inputs[0]
    if not isinstance(read, gs.Variable) or read in graph.inputs:
        return None
    if _numbers(read) is None or _numbers(read) != _numbers(output):
        return None
    logits = _dequantised(graph, squashing) if squashing.op in INTEGER_SQUASHING else read
    if logits.dtype != np.float32:
        return None
    graph.outputs.append(logits)
    return str(logits.name)


def _dequantised(graph: gs.Graph, squashing: gs.Node) -> gs.Variable:
    """What an operator on integers reads, as numbers."""
    given = squashing.inputs[0]
    logits = gs.Variable(f"{given.name}/logits", np.dtype(np.float32), given.shape)
    graph.nodes.append(gs.Node("DequantizeLinear", logits.name, inputs=list(squashing.inputs[:3]), outputs=[logits]))
    return logits


def _numbers(value: gs.Tensor) -> int | None:
    """How many of one image, if that is known."""
    sizes = value.shape[1:] if value.shape is not None else [None]
    return prod(sizes) if all(isinstance(size, int) for size in sizes) else None
