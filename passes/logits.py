"""What the final softmax or sigmoid reads becomes an output too: maps of it do not saturate where probabilities do."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_graphsurgeon as gs

SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
SHAPING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze")


def expose_logits(graph: gs.Graph) -> str | None:
    """Makes the logits the second output of ``graph`` where its output is a softmax or sigmoid of them; returns their name.

    Between that operator and the output only the shape may change, so that logit k belongs to output k.
    """
    output = graph.outputs[0]
    value = output
    while len(value.inputs) == 1 and value.inputs[0].op in SHAPING:
        value = value.inputs[0].inputs[0]
    if len(value.inputs) != 1 or value.inputs[0].op not in SQUASHING:
        return None
    logits = value.inputs[0].inputs[0]
    if not isinstance(logits, gs.Variable) or logits in graph.inputs or logits.dtype != np.float32:
        return None
    if _numbers(logits) is None or _numbers(logits) != _numbers(output):
        return None
    graph.outputs.append(logits)
    return str(logits.name)


def ends_in_sigmoid(graph: gs.Graph) -> bool:
    """Whether the output is a sigmoid's, whatever its shape and type were made after it."""
    value = graph.outputs[0]
    while len(value.inputs) == 1 and value.inputs[0].op in (*SHAPING, "Cast"):
        value = value.inputs[0].inputs[0]
    return len(value.inputs) == 1 and value.inputs[0].op == "Sigmoid"


def _numbers(value: gs.Tensor) -> int | None:
    """How many of one image, if that is known."""
    sizes = value.shape[1:] if value.shape is not None else [None]
    return prod(sizes) if all(isinstance(size, int) for size in sizes) else None
