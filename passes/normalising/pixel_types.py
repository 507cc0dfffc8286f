"""Keeps the image in float32 through operators that only move pixels, where the source has it in another element type.

Pixel values are representable in both types (``runtime.elements``). So moving them in the source's type and casting to float32
gives the same as moving the float32 image. Operators that compute in the source's type still read the cast image.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.graphs.batch import subgraphs
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.normalising.context import Context

MOVES = ("Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Concat", "Split", "Expand",
         "Tile", "DepthToSpace", "SpaceToDepth", "Pad")  # fmt: skip
"""Operators that move elements, or insert constants between them."""
MANY = 1 << 31
CHOICES = ("Clip", "Max", "Min", "MaxPool")
"""Operators each of whose output elements equals an input element."""
BESIDE = {"Concat": range(MANY), "Pad": (2,), "Clip": (1, 2), "Max": range(MANY), "Min": range(MANY)}
"""Indices of the inputs with the element type of the pixels, by operator."""


def keep_float32(graph: gs.Graph, context: Context) -> bool:
    """Adds float32 twins of the nodes that move the typed image, and lets casts to float32 read them. Requires inferred types.

    Casts to types other than the image's are part of the source model, and change values.
    """
    element = context.element
    if element == TensorProto.FLOAT or any(subgraphs(graph)):
        return False
    emit = Emitter(graph)
    twins: dict[str, gs.Tensor] = {}
    changed = False
    for node in list(graph.nodes):
        first = node.inputs[0] if node.inputs else None
        if first is graph.inputs[0] and node.op == "Cast" and node.attrs["to"] == element:
            twins[node.outputs[0].name] = first
        elif first is None or first.name not in twins:
            continue
        elif node.op == "Cast" and node.attrs["to"] == TensorProto.FLOAT:
            _read_instead(node, twins[first.name])
            changed = True
        elif node.op == "DequantizeLinear" and _is_plain(node):
            _dequantize(emit, node, twins[first.name])
            changed = True
        elif node.op in (*MOVES, *CHOICES) or _is_nearest(node):
            _move(emit, node, twins)
    graph.cleanup().toposort()
    return changed


def _move(emit: Emitter, node: gs.Node, twins: dict[str, gs.Tensor]) -> None:
    """Adds a twin of the node on the twins of its inputs. Unread twins are cleaned up at the end."""
    inputs = [twins.get(value.name, value) for value in node.inputs]
    for place, value in enumerate(inputs):
        if value is not node.inputs[place] or value.is_empty() or place not in BESIDE.get(node.op, ()):
            continue
        if not isinstance(value, gs.Constant):
            return
        inputs[place] = emit.constant(np.asarray(value.values).astype(np.float32))
    outputs = [gs.Variable(emit.fresh(f"{value.name}/float32"), np.float32, value.shape) for value in node.outputs]
    emit.graph.nodes.append(gs.Node(node.op, emit.fresh(f"{node.name or node.op}/float32"), dict(node.attrs), inputs, outputs))
    twins.update({value.name: output for value, output in zip(node.outputs, outputs, strict=True)})


def _read_instead(node: gs.Node, twin: gs.Tensor) -> None:
    """Makes all readers of the node's output read ``twin``; a graph output becomes an Identity of it."""
    output = node.outputs[0]
    for reader in list(output.outputs):
        reader.inputs = [twin if value is output else value for value in reader.inputs]
    node.op, node.attrs, node.inputs = "Identity", {}, [twin]


def _is_nearest(node: gs.Node) -> bool:
    """Whether the node is a Resize that copies cells."""
    return bool(node.op == "Resize" and node.attrs.get("mode", "nearest") == "nearest")


def _is_plain(node: gs.Node) -> bool:
    """Whether scale and zero point are per tensor, and the result is float32."""
    parameters = [value for value in node.inputs[1:] if not value.is_empty()]
    plain = all(isinstance(value, gs.Constant) and np.asarray(value.values).size == 1 for value in parameters)
    return plain and node.inputs[1].dtype == np.float32 and node.attrs.get("output_dtype", 0) in (0, TensorProto.FLOAT)


def _dequantize(emit: Emitter, node: gs.Node, twin: gs.Tensor) -> None:
    """Replaces the node by (x - zero point) * scale on the twin: the difference of integers is exact in float32."""
    scale = np.asarray(node.inputs[1].values, dtype=np.float32).reshape(())
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        zero = np.asarray(node.inputs[2].values).astype(np.float32).reshape(())
        twin = emit("Sub", twin, emit.constant(zero))
        twin.dtype = np.dtype(np.float32)
    node.op, node.attrs, node.inputs = "Mul", {}, [twin, emit.constant(scale)]
