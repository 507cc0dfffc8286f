"""Models of an image without a batch, and of a batch that cannot be freed, against the source file."""

from __future__ import annotations

import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from source_file import HEIGHT, PATCH, WIDTH, assert_equals_source, integers, mean_head, save_model

from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.errors import ModelError


def declared(*shape):
    return [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))]


@pytest.mark.parametrize("as_input", [True, False])
def test_an_image_without_a_batch_that_gets_one_is_incremental(as_input, tmp_path):
    """Axes of Unsqueeze as an input, and as an attribute."""
    b = Builder()
    opset = 18 if as_input else 11
    b.channels["image"] = CHANNELS
    x = b.node("Unsqueeze", "image", integers(b, 0)) if as_input else b.node("Unsqueeze", "image", axes=[0])
    path = save_model(tmp_path, b, mean_head(b, opset, x), declared(CHANNELS, HEIGHT, WIDTH), opset=opset)
    report = assert_equals_source(path, batch=None).report
    assert any(node.incremental for node in report.nodes if node.operator == "Conv")


def test_an_image_without_a_batch_runs_whole_and_alone(tmp_path):
    b = Builder()
    x = b.node("Mul", "image", b.weight(CHANNELS, 1, 1))
    x = b.node("ReduceMean", b.node("Sigmoid", x), integers(b, 1, 2), keepdims=0)
    path = save_model(tmp_path, b, x, declared(CHANNELS, HEIGHT, WIDTH))
    report = assert_equals_source(path, batch=None).report
    assert not any(node.incremental for node in report.nodes)


def test_a_batch_that_cannot_be_freed_runs_whole(tmp_path):
    """Four images in each run, whose numbers are reshaped across them and back."""
    b = Builder()
    x = b.relu(b.conv("image", 4, pads=[1, 1, 1, 1]))
    x = b.node("Reshape", x, integers(b, 2, 8, HEIGHT, WIDTH))
    x = b.node("Reshape", b.relu(x), integers(b, 4, 4, HEIGHT, WIDTH))
    b.channels[x] = 4
    output = mean_head(b, 18, x)
    path = save_model(tmp_path, b, output, declared(4, CHANNELS, HEIGHT, WIDTH))
    report = assert_equals_source(path, output, batch=4).report
    reasons = {node.reason for node in report.nodes}
    assert any("first axis" in reason or "batch" in reason for reason in reasons), reasons


def test_three_axes_that_are_no_picture_are_refused(tmp_path):
    b = Builder()
    output = b.node("ReduceMean", "image", integers(b, 1), keepdims=0)
    path = save_model(tmp_path, b, output, declared(7, 20, 30))
    with pytest.raises(ModelError, match=r"expected an input that is an image.*\[7, 20, 30\]"):
        compile_file(path, Options(patch=PATCH))
    assert onnx.load(path).graph.input[0].name == "image"
