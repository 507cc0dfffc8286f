"""Ifs whose branch is known once sizes are: as incremental as the branch itself; others run whole, with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper, numpy_helper
from source_file import HEIGHT, WIDTH, assert_equals_source, mean_head, save_model

SIZE = [CHANNELS, HEIGHT, WIDTH]


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def body(name, nodes, weights=()):
    """A branch; all branches name their values alike, as they may."""
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
                             list(weights))  # fmt: skip


def convolved(b, x, stride):
    """A branch with weights of its own."""
    weights = (b.rng.standard_normal((4, 4, 3, 3)) / 6).astype(np.float32)
    conv = helper.make_node("Conv", [x, "w"], ["c"], name="conv", strides=[stride, stride])
    return body(f"stride_{stride}", [conv, helper.make_node("Relu", ["c"], ["out"], name="relu")],
                [numpy_helper.from_array(weights, "w")])  # fmt: skip


def branch(b, condition, x, then, otherwise):
    return b.node("If", condition, then_branch=then, else_branch=otherwise, channels=4)


def height_is(b, x, number):
    """Whether a map is so high."""
    height = b.node("Gather", b.node("Shape", x), b.constant(2, np.int64), axis=0)
    return b.node("Equal", height, b.constant(number, np.int64))


def operators(nodes):
    return [node.operator for node in nodes if not node.incremental]


@pytest.mark.parametrize("opset", [11, 13, 16, 18])
@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("batch", [1, "N"])
def test_conditions_on_sizes(opset, taken, batch, tmp_path):
    b = Builder()
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    condition = height_is(b, x, HEIGHT if taken else 7)
    x = branch(b, condition, x, convolved(b, x, 1), convolved(b, x, 2))
    path = save_model(tmp_path, b, mean_head(b, opset, b.conv(x, 4)), [tensor("image", [batch, *SIZE])], opset=opset)
    assert operators(assert_equals_source(path).report.nodes) == ["ReduceMean"]


@pytest.mark.parametrize("outer", [True, False])
def test_branches_in_branches(outer, tmp_path):
    b = Builder()
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    first, second = height_is(b, x, HEIGHT if outer else 7), height_is(b, x, 7)
    inner = [
        helper.make_node("Mul", [x, x], ["squared"], name="square"),
        helper.make_node("If", [second], ["out"], name="inner",
                         then_branch=convolved(b, "squared", 1), else_branch=convolved(b, "squared", 2)),
    ]  # fmt: skip
    x = branch(b, first, x, body("outer", inner), convolved(b, x, 1))
    path = save_model(tmp_path, b, mean_head(b, 18, b.conv(x, 4)), [tensor("image", ["N", *SIZE])])
    assert operators(assert_equals_source(path).report.nodes) == ["ReduceMean"]


@pytest.mark.parametrize("training", [True, False])
def test_conditions_that_are_bound(training, tmp_path):
    b = Builder()
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    x = branch(b, "training", x, convolved(b, x, 1), convolved(b, x, 2))
    inputs = [tensor("image", ["N", *SIZE]), tensor("training", [], TensorProto.BOOL)]
    path = save_model(tmp_path, b, mean_head(b, 18, b.conv(x, 4)), inputs)
    bundle = assert_equals_source(path, bind={"training": training}, feeds={"training": np.array(training)})
    assert operators(bundle.report.nodes) == ["ReduceMean"]


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_as_torch_exports_it(opset, tmp_path):
    """If the axis has one place, Squeeze, else Identity: at the end of a network, and the output of the model."""
    b = Builder()
    x = b.node("GlobalAveragePool", b.relu(b.conv("image", 5)))
    size = b.node("Gather", b.node("Shape", x), b.constant(3, np.int64), axis=0)
    condition = b.node("Equal", size, b.constant(1, np.int64))
    if opset < 13:
        squeeze = [helper.make_node("Squeeze", [x], ["out"], axes=[3])]
        weights = []
    else:
        squeeze = [helper.make_node("Squeeze", [x, "axes"], ["out"])]
        weights = [numpy_helper.from_array(np.array([3], np.int64), "axes")]
    x = branch(b, condition, x, body("then", squeeze, weights), body("else", [helper.make_node("Identity", [x], ["out"])]))
    path = save_model(tmp_path, b, x, [tensor("image", [1, *SIZE])], opset=opset)
    assert operators(assert_equals_source(path).report.nodes)[0] == "GlobalAveragePool"


def test_weights_in_files_of_branches(tmp_path):
    b = Builder()
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    x = branch(b, height_is(b, x, HEIGHT), x, convolved(b, x, 1), convolved(b, x, 2))
    path = save_model(tmp_path, b, mean_head(b, 18, b.conv(x, 40)), [tensor("image", ["N", *SIZE])])
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=100, convert_attribute=True)
    assert operators(assert_equals_source(path).report.nodes) == ["ReduceMean"]


def test_conditions_on_the_image_run_whole(tmp_path):
    b = Builder()
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    mean = b.node("ReduceMean", x, keepdims=0)
    x = branch(b, b.node("Greater", mean, b.constant(0.0)), x, convolved(b, x, 1), convolved(b, x, 2))
    path = save_model(tmp_path, b, mean_head(b, 18, b.conv(x, 4)), [tensor("image", [1, *SIZE])])
    nodes = assert_equals_source(path).report.nodes
    assert not any(node.incremental for node in nodes)
    assert nodes[0].reason


def test_conditions_on_the_batch_run_whole(tmp_path):
    b = Builder()
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    size = b.node("Gather", b.node("Shape", x), b.constant(0, np.int64), axis=0)
    x = branch(b, b.node("Equal", size, b.constant(1, np.int64)), x, convolved(b, x, 1), convolved(b, x, 2))
    path = save_model(tmp_path, b, mean_head(b, 18, b.conv(x, 4)), [tensor("image", ["N", *SIZE])])
    nodes = assert_equals_source(path).report.nodes
    assert not any(node.incremental for node in nodes)
