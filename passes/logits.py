"""What the final softmax or sigmoid reads becomes an output too: maps of it do not saturate where probabilities do."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_graphsurgeon as gs

SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
SHAPING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze")


def expose_logits(graph: gs.Graph) -> str | None:
    """Makes the logits the second output of ``graph`` where its output is a softmax or sigmoid of them; returns their name.

    Between that operator and the output only the shape, or the type of floats, may change, so that logit k belongs to output k.
    """
    output = graph.outputs[0]
    value = output
    while len(value.inputs) == 1 and (value.inputs[0].op in SHAPING or _rounds(value.inputs[0])):
        value = value.inputs[0].inputs[0]
    if len(value.inputs) != 1 or value.inputs[0].op not in SQUASHING:
        return None
    batch = graph.inputs[0].shape[0]
    logits = _of_known_size(value.inputs[0].inputs[0], batch)
    if not isinstance(logits, gs.Variable) or logits in graph.inputs or logits.dtype != np.float32:
        return None
    if _numbers(logits, batch) is None or _numbers(logits, batch) != _numbers(output, batch):
        return None
    graph.outputs.append(logits)
    return str(logits.name)


def _of_known_size(value: gs.Tensor, batch: int | str) -> gs.Tensor:
    """``value``, or what was reshaped to it, if only there it is known how many numbers an image has."""
    found = value
    while _numbers(found, batch) is None and len(found.inputs) == 1 and found.inputs[0].op in SHAPING:
        found = found.inputs[0].inputs[0]
    return found


def _rounds(node: gs.Node) -> bool:
    """Whether the node rounds floats to another type of floats, or casts them back."""
    return node.op == "Cast" and all(value.dtype in FLOATS for value in (node.inputs[0], node.outputs[0]))


def _numbers(value: gs.Tensor, batch: int | str) -> int | None:
    """How many of one image, if that is known: rows of Softmax before opset 13 may be of several channels of an image."""
    sizes = value.shape[1:] if value.shape and value.shape[0] == batch else [None]
    return prod(sizes) if all(isinstance(size, int) for size in sizes) else None
