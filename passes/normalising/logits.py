"""Exposes the logits, the input of the final softmax or sigmoid, as a second output: their maps do not saturate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.names import fresh_name
from kcompiler.passes.graphs.values import known_sizes
from kcompiler.runtime.exactness.squashing import Squashing

SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
INTEGER_SQUASHING = ("QLinearSoftmax", "QLinearSigmoid")
FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
SHAPING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
STEPPING = ("QuantizeLinear", "DequantizeLinear")
"""Operators that quantise values, and dequantise them again."""
SCALING = ("Mul", "Div")


@dataclass(frozen=True, slots=True)
class Logits:
    """The second output of a model: its ``name``, and the elementwise map (or softmax) from it to the explained output."""

    name: str
    squashing: Squashing | None = None


def expose_logits(graph: gs.Graph) -> Logits | None:
    """Makes the logits the second output of ``graph`` where its output is a softmax or sigmoid of them.

    Between that operator and the output, only changes of shape or type and a positive factor (percent) are allowed, so that
    logit k belongs to output k. Quantised logits are dequantised.
    """
    output = graph.outputs[0]
    value, factor, stepped = output, 1.0, False
    while len(value.inputs) == 1 and (before := _before(value.inputs[0])) is not None:
        stepped |= value.inputs[0].op in STEPPING
        value, factor = before[0], factor * before[1]
    if len(value.inputs) != 1 or value.inputs[0].op not in (*SQUASHING, *INTEGER_SQUASHING):
        return None
    node = value.inputs[0]
    # Shape inference may lose the name of the batch axis (at a Resize, for example): then the output has the same new name.
    firsts = [graph.inputs[0].shape[0], *(output.shape or [])[:1]]
    read = _of_known_size(node.inputs[0], firsts)
    if not isinstance(read, gs.Variable) or read in graph.inputs:
        return None
    if _elements(read, firsts) is None or _elements(read, firsts) != _elements(output, firsts):
        return None
    logits = _dequantised(graph, read, node) if node.op in INTEGER_SQUASHING else read
    if logits.dtype != np.float32:
        return None
    graph.outputs.append(logits)
    # A quantised probability is off by a whole step or not at all: no error of the logits is passed on.
    exact = node.op in INTEGER_SQUASHING or stepped
    return Logits(str(logits.name), None if exact else Squashing(operator=node.op, factor=factor))


def ends_in_sigmoid(graph: gs.Graph) -> bool:
    """Whether the output is a sigmoid's, up to changes of shape and type."""
    value = graph.outputs[0]
    while len(value.inputs) == 1 and value.inputs[0].op in (*SHAPING, *STEPPING, "Cast"):
        value = value.inputs[0].inputs[0]
    return len(value.inputs) == 1 and value.inputs[0].op in ("Sigmoid", "QLinearSigmoid")


def _dequantised(graph: gs.Graph, quantised: gs.Variable, squashing: gs.Node) -> gs.Variable:
    """The dequantised first input of an integer softmax or sigmoid."""
    logits = gs.Variable(fresh_name(f"{quantised.name}/logits", set(graph.tensors())), np.dtype(np.float32), quantised.shape)
    graph.nodes.append(gs.Node("DequantizeLinear", logits.name, inputs=[quantised, *squashing.inputs[1:3]], outputs=[logits]))
    return logits


def _before(node: gs.Node) -> tuple[gs.Tensor, float] | None:
    """The input and factor of a node that only reshapes, rounds (factor 1) or scales by a positive factor; None for others."""
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
    """``value``, or the nearest value that it is a reshape of and whose elements per image are known."""
    source = value
    while _elements(source, firsts) is None and len(source.inputs) == 1 and source.inputs[0].op in SHAPING:
        source = source.inputs[0].inputs[0]
    return source


def _rounds(node: gs.Node) -> bool:
    """Whether the node is a Cast between floating-point types."""
    return node.op == "Cast" and all(value.dtype in FLOATS for value in (node.inputs[0], node.outputs[0]))


def _elements(value: gs.Tensor, firsts: Sequence[int | str]) -> int | None:
    """Elements of ``value`` for one image, if known; its first axis must be one of ``firsts``, which denote the batch.

    The first axis of a Softmax's input before opset 13 may be batch times channels.
    """
    sizes = known_sizes(value.shape) if value.shape and value.shape[0] in firsts else None
    return prod(sizes) if sizes is not None else None
