"""Attributes out of their range, and such as refer to nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz.cases import Case, Files
from tests.fuzz.known.making import convolution, files, head, model, plain


def attribute_reference() -> Iterator[Case]:
    """An attribute that refers to one of a function, outside any."""
    for operator, name, kind in (("conv", "group", 2), ("conv", "pads", 7), ("mean", "axes", 7)):
        made = plain()
        node = made.graph.node[0 if operator == "conv" else 1]
        node.attribute.append(onnx.AttributeProto(name=name, ref_attr_name="outer", type=kind))
        yield f"attribute reference {name}", files(made)
    made = plain()
    constant = onnx.NodeProto(op_type="Constant", output=["c"])
    constant.attribute.append(onnx.AttributeProto(name="value", ref_attr_name="outer", type=4))
    made.graph.node.insert(0, constant)
    yield "attribute reference of a constant", files(made)


def groups() -> Iterator[Case]:
    for group in (0, -1, -3, 2, 1 << 40, -(1 << 63)):
        yield f"group {group}", files(model([convolution(group=group), *head()]))
        quantised = helper.make_node("ConvTranspose", ["image", "weights"], ["maps"], group=group)
        yield f"group {group} transposed", files(model([quantised, *head()]))


def odd_attributes() -> Iterator[Case]:
    """Attributes and sizes that are negative, 0, or beyond 32 bits."""
    for size in (-1, 0, 1 << 31, 1 << 40, -(1 << 63)):
        yield from _windows(size)
        yield from _axes(size)
        yield from _sizes(size)


def _windows(size: int) -> Iterator[Case]:
    for operator, reads, names in (
        ("Conv", ["image", "weights"], ("strides", "dilations", "kernel_shape", "pads")),
        ("MaxPool", ["image"], ("strides", "dilations", "kernel_shape", "pads")),
        ("AveragePool", ["image"], ("strides", "kernel_shape")),
        ("LpPool", ["image"], ("strides", "kernel_shape")),
    ):
        for name in names:
            attributes = {"kernel_shape": [3, 3], name: [size] * (4 if name == "pads" else 2)}
            node = helper.make_node(operator, reads, ["maps"], **attributes)
            yield f"{operator} with {name} {size}", files(model([node, *head()]))


def _axes(size: int) -> Iterator[Case]:
    for operator, name in (("DepthToSpace", "blocksize"), ("SpaceToDepth", "blocksize"), ("LRN", "size")):
        node = helper.make_node(operator, ["image"], ["maps"], **{name: size})
        yield f"{operator} with {name} {size}", files(model([node, *head()], []))
    for operator in ("Concat", "Softmax", "Flatten", "Split"):
        node = helper.make_node(operator, ["image"], ["maps"], axis=size)
        after = head() if operator != "Flatten" else [helper.make_node("Identity", ["maps"], ["scores"])]
        yield f"{operator} with axis or index {size}", files(model([node, *after], []))
    gather = helper.make_node("Gather", ["image", "index"], ["maps"], axis=1)
    index = numpy_helper.from_array(np.array([size]), "index")
    yield f"Gather with axis or index {size}", files(model([gather, *head()], [index]))


def _sizes(size: int) -> Iterator[Case]:
    """Of shapes, scales and pads that are constants."""
    for operator in ("Expand", "Reshape", "Tile"):
        node = helper.make_node(operator, ["image", "sizes"], ["maps"])
        yield f"{operator} with size {size}", _of_constant("sizes", [1, 3, size, 8], node)
    constant, add = helper.make_node("ConstantOfShape", ["sizes"], ["c"]), helper.make_node("Add", ["image", "c"], ["maps"])
    yield f"ConstantOfShape with size {size}", _of_constant("sizes", [1, 3, size, 8], constant, add)
    resize = helper.make_node("Resize", ["image", "", "scales"], ["maps"])
    yield f"Resize by {size}", _of_constant("scales", np.array([1, 1, size, size], np.float32), resize)
    pad = helper.make_node("Pad", ["image", "pads"], ["maps"])
    yield f"Pad by {size}", _of_constant("pads", [0, 0, size, size, 0, 0, size, size], pad)


def _of_constant(name: str, values: object, *nodes: onnx.NodeProto) -> Files:
    return files(model([*nodes, *head()], [numpy_helper.from_array(np.asarray(values), name)]))
