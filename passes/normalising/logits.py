"""What the final softmax or sigmoid reads becomes an output too: maps of it do not saturate where probabilities do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.values import known_sizes
from kcompiler.runtime.exactness.squashing import Squashing

SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
INTEGER_SQUASHING = ("QLinearSoftmax", "QLinearSigmoid")
FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
SHAPING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
STEPPING = ("QuantizeLinear", "DequantizeLinear")
"""Operators that round numbers to the steps of integers, and make numbers of these again."""
SCALING = ("Mul", "Div")


@dataclass(frozen=True, slots=True)
class Logits:
    """The second output of a model: its ``name``, and what makes the explained output of it, number by number."""

    name: str
    squashing: Squashing | None = None


def expose_logits(graph: gs.Graph) -> Logits | None:
    """Makes the logits the second output of ``graph`` where its output is a softmax or sigmoid of them.

    Between that operator and the output only the shape, or the type of numbers, may change, so that logit k belongs to output
    k, or a factor stand (percent). Logits that are integers are made numbers.
    """
    output = graph.outputs[0]
    value, factor, stepped = output, 1.0, False
    while len(value.inputs) == 1 and (of := _before(value.inputs[0])) is not None:
        stepped |= value.inputs[0].op in STEPPING
        value, factor = of[0], factor * of[1]
    if len(value.inputs) != 1 or value.inputs[0].op not in (*SQUASHING, *INTEGER_SQUASHING):
        return None
    node = value.inputs[0]
    # A Resize, say, leaves its first axis without a name that inference knows: then the output has the same.
    firsts = [graph.inputs[0].shape[0], *(output.shape or [])[:1]]
    read = _of_known_size(node.inputs[0], firsts)
    if not isinstance(read, gs.Variable) or read in graph.inputs:
        return None
    if _numbers(read, firsts) is None or _numbers(read, firsts) != _numbers(output, firsts):
        return None
    logits = _dequantised(graph, read, node) if node.op in INTEGER_SQUASHING else read
    if logits.dtype != np.float32:
        return None
    graph.outputs.append(logits)
    # Rounded to steps, a probability is off by a whole step or by nothing: no error of logits is passed on.
    exact = node.op in INTEGER_SQUASHING or stepped
    return Logits(str(logits.name), None if exact else Squashing(operator=node.op, factor=factor))


def ends_in_sigmoid(graph: gs.Graph) -> bool:
    """Whether the output is a sigmoid's, whatever its shape and type were made after it."""
    value = graph.outputs[0]
    while len(value.inputs) == 1 and value.inputs[0].op in (*SHAPING, *STEPPING, "Cast"):
        value = value.inputs[0].inputs[0]
    return len(value.inputs) == 1 and value.inputs[0].op in ("Sigmoid", "QLinearSigmoid")


def _dequantised(graph: gs.Graph, given: gs.Variable, squashing: gs.Node) -> gs.Variable:
    """What an operator on integers reads, as numbers."""
    logits = gs.Variable(f"{given.name}/logits", np.dtype(np.float32), given.shape)
    graph.nodes.append(gs.Node("DequantizeLinear", logits.name, inputs=[given, *squashing.inputs[1:3]], outputs=[logits]))
    return logits


def _before(node: gs.Node) -> tuple[gs.Tensor, float] | None:
    """What ``node`` gives in another shape or rounded, or times a number above 0, and that number; None for any other node."""
    if node.op in (*SHAPING, *STEPPING) or _rounds(node):
        return node.inputs[0], 1.0
    if node.op not in SCALING:
        return None
    scales = [value for value in node.inputs if isinstance(value, gs.Constant)]
    if len(scales) != 1 or np.size(scales[0].values) != 1 or (node.op == "Div" and node.inputs[1] is not scales[0]):
        return None
    scale = float(np.asarray(scales[0].values).item())
    (scaled,) = [value for value in node.inputs if value is not scales[0]]
    if not (np.isfinite(scale) and scale > 0):
        return None
    return scaled, 1 / scale if node.op == "Div" else scale


def _of_known_size(value: gs.Tensor, firsts: Sequence[int | str]) -> gs.Tensor:
    """``value``, or what was reshaped to it, if only there it is known how many numbers an image has."""
    found = value
    while _numbers(found, firsts) is None and len(found.inputs) == 1 and found.inputs[0].op in SHAPING:
        found = found.inputs[0].inputs[0]
    return found


def _rounds(node: gs.Node) -> bool:
    """Whether the node rounds floats to another type of floats, or casts them back."""
    return node.op == "Cast" and all(value.dtype in FLOATS for value in (node.inputs[0], node.outputs[0]))


def _numbers(value: gs.Tensor, firsts: Sequence[int | str]) -> int | None:
    """How many of one image, if that is known: with one of ``firsts`` for its first axis.

    Rows of Softmax before opset 13 may be of several channels of an image.
    """
    sizes = known_sizes(value.shape) if value.shape and value.shape[0] in firsts else None
    return prod(sizes) if sizes is not None else None
