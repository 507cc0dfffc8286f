"""From NCHWc to NCHW: models that ONNX Runtime wrote in its blocked layout, and their weights.

In NCHWc, the channels of a map are in blocks of 8 or 16, depending on the machine, padded with zeros. Only a machine with the
same block size runs such a model correctly. So the block size is that of ONNX Runtime on this machine, measured by running it.
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
    """Rewrites ``model`` in place; ``folder`` contains its external weights. Returns whether any node was rewritten.

    A model with a blocked operator that is not in the table is unchanged, since its maps must stay in NCHWc.
    """
    blocked = [node for node in model.graph.node if node.domain == BLOCKED]
    if not blocked or not {node.op_type for node in blocked} <= {*UNBLOCKED}:
        return False
    weights = {tensor.name for tensor in model.graph.initializer}
    if not all(node.input[1] in weights for node in blocked if node.op_type == "Conv"):
        return False
    entering = [node for node in blocked if node.op_type == "ReorderInput"]
    shapes = {value.name: value for value in model.graph.input} | (dict(runtime_shapes(model, folder)) if entering else {})
    unpadded = {node.output[0]: _channels(shapes.get(node.input[0]), 3 if _is_last(node) else 1) for node in entering}
    if not all(unpadded.values()):
        return False
    return unfuse(model, folder, {**UNBLOCKED, "Conv": partial(conv, unpadded)}, BLOCKED)


def _is_last(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "channels_last" and attribute.i for attribute in node.attribute)


def _channels(value: onnx.ValueInfoProto | None, axis: int) -> int:
    """The number of channels of a map, whose channel axis is ``axis``; 0 if unknown."""
    dims = value.type.tensor_type.shape.dim if value is not None else []
    return int(dims[axis].dim_value) if len(dims) > axis else 0


@cache
def block_size() -> int:
    """Channels of a block on this machine: the offset, in NCHWc, of the second of two cells."""
    shape = [1, LARGEST_BLOCK, 1, 2]
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=BLOCKED)
    value, output = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y"))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(BLOCKED, 1)]
    model = helper.make_model(helper.make_graph([node], "blocks", [value], [output]), opset_imports=opsets, ir_version=8)
    session = open_session(model.SerializeToString(), Machine(("cpu",), 1))
    cells = np.repeat(np.arange(2, dtype=np.float32)[None], LARGEST_BLOCK, axis=0).reshape(shape)
    reordered = np.ravel(session.run(None, {"x": cells})[0])
    return int(np.argmax(reordered))  # the first channel of the second cell is behind a block of the first cell


def in_order(weights: AnyArray, group: int) -> AnyArray:
    """Weights of a blocked convolution, of shape [M, C / group, kernel h, kernel w], reordered as in ONNX."""
    size = block_size()
    outputs, inputs, *kernel = weights.shape
    if inputs < size or (group > 1 and inputs == 1):  # input in NCHW, or depthwise: only the outputs are blocked
        return weights.reshape(outputs // size, inputs, *kernel, size).transpose(0, 4, 1, 2, 3).reshape(weights.shape)
    blocks = weights.reshape(outputs // size, inputs // size, *kernel, size, size)
    return blocks.transpose(0, 5, 1, 4, 2, 3).reshape(weights.shape)


def conv(narrow: Mapping[str, int], parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """A convolution with its weights in ONNX order, without those of padding channels.

    ``narrow`` is the number of channels without padding of each blocked value that comes from a ReorderInput, by name.
    """
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
    """From NCHW or NHWC to NCHWc: becomes NCHW without padding channels; convolutions that read them lose those weights."""
    if attributes.get("channels_last", 0):
        parts("Transpose", *node.input, perm=TO_FIRST)
    else:
        parts("Identity", *node.input)
    return True


def reorder_output(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """From NCHWc to NCHW or NHWC, which drops the padding channels of the last block."""
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
"""Rewrites by operator of com.microsoft.nchwc."""
