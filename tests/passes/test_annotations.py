"""Shapes that files declare, wrongly or not at all: hints, which ONNX Runtime does without, and so does compilation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from source_file import HEIGHT, PATCH, WIDTH, assert_equals_source, mean_head, save_model

from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.errors import ModelError

SIZE = [CHANNELS, HEIGHT, WIDTH]


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def network(b, x="image"):
    return mean_head(b, 18, b.relu(b.conv(x, 4, pads=[1, 1, 1, 1])))


def incremental(nodes):
    return {node.operator for node in nodes if node.incremental}


@pytest.mark.parametrize("batch", [1, "N", -1], ids=str)
@pytest.mark.parametrize("out", [None, [1, 5], [-1, 5], [0, 5], [1, 3], [1, 5, 1, 1], ["N", "K"]], ids=str)
def test_declared_batches_and_outputs(batch, out, tmp_path):
    """Of Paddle's exports -1 and of others 0 mean "any"; what graph tools leave has no shape, or a stale one."""
    b = Builder()
    x = network(b)
    path = save_model(tmp_path, b, x, [tensor("image", [batch, *SIZE])], value=tensor(x, out))
    assert "Conv" in incremental(assert_equals_source(path).report.nodes)


def test_input_declared_without_pixels(tmp_path):
    """ONNX Runtime takes zero literally, and only for the input."""
    b = Builder()
    x = network(b)
    given = save_model(tmp_path, b, x, [tensor("image", [0, CHANNELS, 0, 0])])
    plain = save_model(tmp_path, b, x, [tensor("image", [1, *SIZE])], name="plain.onnx")
    assert "Conv" in incremental(assert_equals_source(given, input_shape=(CHANNELS, HEIGHT, WIDTH), oracle=plain).report.nodes)


@pytest.mark.parametrize(
    "shape", [None, [None] * 4, [1, 3, -1, -1], ["n", 3, "n", "n"], ["N", "C", "H", "W"], ["", "", "", ""]], ids=str
)
def test_open_sizes_with_an_input_shape(shape, tmp_path):
    b = Builder()
    path = save_model(tmp_path, b, network(b), [tensor("image", shape)])
    assert "Conv" in incremental(assert_equals_source(path, input_shape=(CHANNELS, HEIGHT, WIDTH)).report.nodes)


def test_output_without_a_type(tmp_path):
    b = Builder()
    x = network(b)
    path = save_model(tmp_path, b, x, [tensor("image", [1, *SIZE])], value=onnx.ValueInfoProto(name=x))
    assert "Conv" in incremental(assert_equals_source(path).report.nodes)


def test_stale_shapes_between_nodes(tmp_path):
    b = Builder()
    x = network(b)
    path = save_model(tmp_path, b, x, [tensor("image", [1, *SIZE])])
    model = onnx.load(path)
    for node in model.graph.node:
        model.graph.value_info.append(tensor(node.output[0], [7, 9, 11, 13] if node.op_type != "ReduceMean" else [7, 9]))
    onnx.save(model, path)
    assert "Conv" in incremental(assert_equals_source(path).report.nodes)


@pytest.mark.parametrize("batch", [1, "N", -1], ids=str)
@pytest.mark.parametrize("rows", [[-1, 4], [-1, 168, 4]], ids=str)
def test_rows_of_channels_last_maps(batch, rows, tmp_path):
    """All cells of all images as rows, as Keras' dense layers on maps are exported."""
    b = Builder()
    x = b.node("Transpose", b.relu(b.conv("image", 4, pads=[1, 1, 1, 1])), perm=[0, 2, 3, 1])
    x = b.node("MatMul", b.node("Reshape", x, b.constant(rows, np.int64)), b.weight(4, 6))
    x = b.node("Reshape", x, b.constant([-1, HEIGHT, WIDTH, 6], np.int64))
    x = b.node("Transpose", x, perm=[0, 3, 1, 2], channels=6)
    path = save_model(tmp_path, b, network(b, x), [tensor("image", [batch, *SIZE])])
    nodes = assert_equals_source(path).report.nodes
    assert incremental(nodes) == {"Conv", "Relu", "Transpose"}


def test_operators_without_a_shape_function(tmp_path):
    """What follows an operator of ONNX Runtime's own domain is dense, or whole."""
    b = Builder()
    x = b.node("QuickGelu", b.conv("image", 4, pads=[1, 1, 1, 1]), alpha=1.7, domain="com.microsoft")
    path = save_model(tmp_path, b, network(b, x), [tensor("image", ["N", *SIZE])], domains=["com.microsoft"])
    nodes = assert_equals_source(path).report.nodes
    assert all(node.incremental or node.reason for node in nodes)


def test_an_input_that_is_also_an_output(tmp_path):
    b = Builder()
    x = network(b)
    path = save_model(tmp_path, b, x, [tensor("image", [1, *SIZE])])
    model = onnx.load(path)
    model.graph.output.append(tensor("image", [1, *SIZE]))
    onnx.save(model, path)
    nodes = assert_equals_source(path, output=x).report.nodes
    assert "Conv" in incremental(nodes)
    with pytest.raises(ModelError, match="output image is the image itself"):
        compile_file(path, Options(patch=PATCH, output="image"))


def test_empty_names(tmp_path):
    b = Builder()
    x = b.node("Clip", b.conv("image", 4, pads=[1, 1, 1, 1]), "", b.constant(0.5))
    for node in b.nodes:
        node.name = ""
    path = save_model(tmp_path, b, network(b, x), [tensor("image", [1, *SIZE])])
    assert "Clip" in incremental(assert_equals_source(path).report.nodes)
