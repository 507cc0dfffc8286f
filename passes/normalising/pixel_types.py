"""The image in its source's own type, as far as it is moved but not computed with: in float32 all the same.

Pixels are numbers that both types have (``runtime.elements``), so that moving them, and casting them to the source's type and
back, gives the same as moving the float32 image. What computes in the other type still has it cast.
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
"""Operators that move numbers, or put constants beside them."""
MANY = 1 << 31
CHOICES = ("Clip", "Max", "Min", "MaxPool")
"""Operators that give one of the numbers that they read."""
BESIDE = {"Concat": range(MANY), "Pad": (2,), "Clip": (1, 2), "Max": range(MANY), "Min": range(MANY)}
"""Places of the inputs that are numbers as pixels are."""


def keep_float32(graph: gs.Graph, context: Context) -> bool:
    """Makes float32 twins of what is moved of the typed image, for casts to float32 to read. Requires inferred types.

    Casts to other types than the image's are the source's own, and change numbers.
    """
    kind = context.element
    if kind == TensorProto.FLOAT or any(subgraphs(graph)):
        return False
    emit = Emitter(graph)
    twins: dict[str, gs.Tensor] = {}
    changed = False
    for node in list(graph.nodes):
        first = node.inputs[0] if node.inputs else None
        if first is graph.inputs[0] and node.op == "Cast" and node.attrs["to"] == kind:
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
    """The same node on twins, beside it: what is not read in the end is cleaned up."""
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
    """All that reads what ``node`` gives reads ``twin``; what is put out stays."""
    output = node.outputs[0]
    for reader in list(output.outputs):
        reader.inputs = [twin if value is output else value for value in reader.inputs]
    node.op, node.attrs, node.inputs = "Identity", {}, [twin]


def _is_nearest(node: gs.Node) -> bool:
    """Whether the node enlarges or shrinks a map by taking its cells as they are."""
    return bool(node.op == "Resize" and node.attrs.get("mode", "nearest") == "nearest")


def _is_plain(node: gs.Node) -> bool:
    """Whether all numbers are scaled alike, to float32."""
    parameters = [value for value in node.inputs[1:] if not value.is_empty()]
    plain = all(isinstance(value, gs.Constant) and np.asarray(value.values).size == 1 for value in parameters)
    return plain and node.inputs[1].dtype == np.float32 and node.attrs.get("output_dtype", 0) in (0, TensorProto.FLOAT)


def _dequantize(emit: Emitter, node: gs.Node, twin: gs.Tensor) -> None:
    """(x - zero point) * scale: the difference of whole numbers is exact in float32."""
    scale = np.asarray(node.inputs[1].values, dtype=np.float32).reshape(())
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        zero = np.asarray(node.inputs[2].values).astype(np.float32).reshape(())
        twin = emit("Sub", twin, emit.constant(zero))
        twin.dtype = np.dtype(np.float32)
    node.op, node.attrs, node.inputs = "Mul", {}, [twin, emit.constant(scale)]
