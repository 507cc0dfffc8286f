"""Out of blocks: models that ONNX Runtime wrote in its blocked layout come back to channels first, their weights with them.

In that layout the channels of a map lie in blocks of 8 or 16, by the machine, filled up with zeros. Only the machine that
wrote such a model, or one with blocks of that size, runs it right, so that the size is asked of ONNX Runtime itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from kcompiler.passes.graphs.shapes import runtime_shapes
from kcompiler.passes.normalising.unfuse import Attributes, Parts, TakeApart, convolved, unfuse
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.inference.sessions import Machine, open_session

BLOCKED = "com.microsoft.nchwc"
LARGEST_BLOCK = 16
TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def unblock(model: onnx.ModelProto, folder: Path) -> bool:
    """Rewrites ``model`` in place, whose weights may lie in files in ``folder``. Returns whether any node was blocked.

    A model with an operator that the table does not have stays as it is, as a map cannot be in both layouts.
    """
    blocked = [node for node in model.graph.node if node.domain == BLOCKED]
    if not blocked or not {node.op_type for node in blocked} <= {*UNBLOCKED}:
        return False
    weights = {tensor.name for tensor in model.graph.initializer}
    if not all(node.input[1] in weights for node in blocked if node.op_type == "Conv"):
        return False
    entering = [node for node in blocked if node.op_type == "ReorderInput"]
    shapes = {value.name: value for value in model.graph.input} | (dict(runtime_shapes(model, folder)) if entering else {})
    narrow = {node.output[0]: _channels(shapes.get(node.input[0]), 3 if _is_last(node) else 1) for node in entering}
    if not all(narrow.values()):
        return False
    return unfuse(model, folder, {**UNBLOCKED, "Conv": partial(conv, narrow)}, BLOCKED)


def _is_last(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "channels_last" and attribute.i for attribute in node.attribute)


def _channels(value: onnx.ValueInfoProto | None, axis: int) -> int:
    """Of a map whose channels are along ``axis``, 0 if they are not known."""
    dims = value.type.tensor_type.shape.dim if value is not None else []
    return int(dims[axis].dim_value) if len(dims) > axis else 0


@cache
def block_size() -> int:
    """Channels of a block on this machine: where the second channel of two cells goes tells."""
    shape = [1, LARGEST_BLOCK, 1, 2]
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=BLOCKED)
    value, output = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y"))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(BLOCKED, 1)]
    model = helper.make_model(helper.make_graph([node], "blocks", [value], [output]), opset_imports=opsets, ir_version=8)
    session = open_session(model.SerializeToString(), Machine(("cpu",), 1))
    cells = np.repeat(np.arange(2, dtype=np.float32)[None], LARGEST_BLOCK, axis=0).reshape(shape)
    found = np.ravel(session.run(None, {"x": cells})[0])
    return int(np.argmax(found))  # the first number of the second cell stands behind a block of the first


def in_order(weights: AnyArray, group: int) -> AnyArray:
    """Weights [M, C / group, kernel h, kernel w] as ONNX has them, from how a blocked convolution has them."""
    size = block_size()
    outputs, inputs, *kernel = weights.shape
    if inputs < size or (group > 1 and inputs == 1):  # reads channels first, or is depthwise: outputs alone are blocked
        return weights.reshape(outputs // size, inputs, *kernel, size).transpose(0, 4, 1, 2, 3).reshape(weights.shape)
    blocks = weights.reshape(outputs // size, inputs // size, *kernel, size, size)
    return blocks.transpose(0, 5, 1, 4, 2, 3).reshape(weights.shape)


def conv(narrow: Mapping[str, int], parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """With weights for as many channels as its input has: ``narrow`` says how many there are without zeros that fill a block."""
    weights = parts.weights(node.input[1])
    assert weights is not None, "checked before any node is rewritten"
    plain, group = in_order(weights, attributes.get("group", 1)), attributes.get("group", 1)
    ordered = parts.constant(plain[:, : narrow.get(node.input[0], plain.shape[1]) if group == 1 else None], "weights")
    convolved(parts, [node.input[0], ordered, *node.input[2:]], attributes)
    return True


def pool(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    parts(node.op_type, *node.input, **attributes)
    return True


def reorder_input(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """Into blocks. Channels that fill the last block up are zeros: convolutions that read them lose those weights instead."""
    if attributes.get("channels_last", 0):
        parts("Transpose", *node.input, perm=TO_FIRST)
    else:
        parts("Identity", *node.input)
    return True


def reorder_output(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """Out of blocks, without the channels that fill the last one up."""
    limits = (parts.constant(np.array([number])) for number in (0, attributes["channels"], 1))
    value = parts("Slice", *node.input, *limits)
    if attributes.get("channels_last", 0):
        parts("Transpose", value, perm=TO_LAST)
    return True


UNBLOCKED: Mapping[str, TakeApart] = {
    "Conv": partial(conv, {}),
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalMaxPool": pool,
    "GlobalAveragePool": pool,
    "ReorderInput": reorder_input,
    "ReorderOutput": reorder_output,
}
"""By operator of com.microsoft.nchwc."""
