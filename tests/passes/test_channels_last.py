"""Images whose channels come last, as TensorFlow and Keras export them: outputs are those of the source file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import NETWORKS, Builder
from onnx import helper
from source_file import assert_equals_source

import kcompiler
from kcompiler.passes.source.load import load
from kcompiler.runtime.errors import ModelError


def channels_last(builder: Builder, height: int = 20, width: int = 24) -> onnx.ModelProto:
    """A model as TensorFlow exports it: image [N, H, W, C], transposed at once."""
    model = builder.model(NETWORKS["residual"](builder), height, width)
    model.graph.node.insert(0, helper.make_node("Transpose", ["pixels"], ["image"], perm=[0, 3, 1, 2]))
    return of_pixels(model, height, width)


def of_pixels(model: onnx.ModelProto, height: int, width: int) -> onnx.ModelProto:
    """The model with its image declared as [1, H, W, C], checked."""
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", 1, [1, height, width, 3]))
    onnx.checker.check_model(model, full_check=True)
    return model


def test_channels_last_input(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(channels_last(Builder()), path)
    assert load(path).layout == "NHWC"
    assert load(path).shape == (3, 20, 24)
    bundle = assert_equals_source(path, patch=(4, 6))
    assert any(node.incremental for node in bundle.report.nodes if node.operator == "Conv")
    explainer, pixels = kcompiler.load(bundle), np.random.default_rng(0).standard_normal((20, 24, 3), dtype=np.float32)
    assert explainer.explain(pixels[None], stride=4).scores.shape == (5, 5)
    with pytest.raises(kcompiler.ImageError, match=r"expected \[20, 24, 3\].*height, width, channels"):
        explainer.outputs(pixels.transpose(2, 0, 1), [[0, 0]])


def in_keras_manner(builder: Builder, height: int = 20, width: int = 24) -> onnx.ModelProto:
    """Everything channels last but the convolutions, which stand between Transposes; pixels are scaled before anything else."""

    def convolved(x: str, channels: int, **attributes: object) -> str:
        first = builder.node("Transpose", x, perm=[0, 3, 1, 2])
        y = builder.node("Transpose", builder.conv(first, channels, bias=False, **attributes), perm=[0, 2, 3, 1])
        builder.channels[y] = channels
        return builder.node("Relu", builder.node("Add", y, builder.weight(channels)))

    builder.nodes.append(helper.make_node("Transpose", ["image"], ["pixels"], perm=[0, 2, 3, 1]))  # taken out again
    builder.channels["pixels"] = 3
    x = builder.node("Div", builder.node("Sub", "pixels", builder.weight(3)), builder.constant(1.7))
    x = convolved(convolved(x, 4, pads=[1, 1, 1, 1]), 6, strides=[2, 2])
    y = builder.node("Concat", x, convolved(x, 2, pads=[1, 1, 1, 1]), axis=3, channels=8)
    mean = builder.node("ReduceMean", y, builder.constant([1, 2], np.int64), keepdims=0)
    model = builder.model(mean, height, width)
    del model.graph.node[0]
    return of_pixels(model, height, width)


def test_graphs_that_are_channels_last_throughout(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(in_keras_manner(Builder()), path)
    assert load(path).layout == "NHWC"
    bundle = assert_equals_source(path, patch=(4, 6))
    dense = {node.operator for node in bundle.report.nodes if not node.incremental}
    assert dense <= {"ReduceMean", "Flatten", "Gemm"}, "the mean is updated"


def test_channels_last_input_of_open_size(tmp_path):
    path = tmp_path / "model.onnx"
    model = channels_last(Builder())
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", 1, ["n", "h", "w", 3]))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="open sizes"):
        load(path)
    assert load(path, (20, 24, 3)).shape == (3, 20, 24)


def test_channels_last_image_whose_channels_change_order_first(tmp_path):
    """Nothing that reads the image tells its layout, but its last axis has the size of a picture's channels."""
    builder = Builder()
    builder.nodes.append(helper.make_node("Transpose", ["image"], ["pixels"], perm=[0, 2, 3, 1]))  # taken out again
    reversed_channels = builder.node("Gather", "pixels", builder.constant([2, 1, 0], np.int64), axis=3, channels=3)
    first = builder.node("Transpose", reversed_channels, perm=[0, 3, 1, 2])
    model = builder.model(builder.relu(builder.conv(first, 4, pads=[1, 1, 1, 1])), 20, 24)
    del model.graph.node[0]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", 1, [1, 20, 24, 3]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    bundle = assert_equals_source(path, patch=(4, 6))
    assert bundle.manifest.layout == "NHWC"
    assert any("pixels [1, 20, 24, 3] is taken as NHWC" in note for note in bundle.report.notes)
    assert next(node for node in bundle.report.nodes if node.operator == "Conv").incremental
