"""Opsets 7 to 12 as files have them: what changed since, and what ONNX Runtime still runs but no later opset has."""

from __future__ import annotations

import numpy as np
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from source_file import HEIGHT, PATCH, WIDTH, assert_equals_source, mean_head, save_model

from kcompiler.options import Options
from kcompiler.pipeline import analyse

OPSETS = [7, 8, 9, 10, 11, 12]


def write(folder, b, x, opset, batch="N"):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, CHANNELS, HEIGHT, WIDTH])
    return save_model(folder, b, x, [image], opset=opset)


def trunk(b):
    return b.relu(b.conv("image", 4, pads=[1, 1, 1, 1]))


def has_logits(path, folder):
    return analyse(path, Options(patch=PATCH), folder).head.logits is not None


def dense(nodes):
    return [node.operator for node in nodes if not node.incremental]


@pytest.mark.parametrize("opset", [7, 10, 12])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 1, 2, -1])
def test_softmax_that_flattens_has_logits(op, axis, opset, tmp_path):
    """Before opset 13 it is over all axes from the one given on, which is 1 if none is."""
    b = Builder()
    x = b.conv(trunk(b), 2, 6, strides=[3, 3])
    x = b.node("Flatten", b.node(op, x, **({} if axis is None else {"axis": axis})))
    path = write(tmp_path, b, x, opset)
    assert_equals_source(path)
    assert has_logits(path, tmp_path)


@pytest.mark.parametrize("opset", OPSETS)
def test_softmax_of_rows_and_of_one_cell(opset, tmp_path):
    b = Builder()
    path = write(tmp_path, b, b.node("Softmax", mean_head(b, opset, trunk(b))), opset)
    assert dense(assert_equals_source(path).report.nodes) == ["ReduceMean", "Softmax"]
    assert has_logits(path, tmp_path)
    b = Builder()
    path = write(tmp_path, b, b.node("Softmax", b.node("GlobalAveragePool", b.conv(trunk(b), 5))), opset)
    assert_equals_source(path)
    assert has_logits(path, tmp_path)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [7, 8, 9])
def test_upsample(opset, mode, tmp_path):
    b = Builder()
    scales = [1.0, 1.0, 2.0, 3.0]
    x = trunk(b)
    x = b.node("Upsample", x, scales=scales, mode=mode) if opset < 9 else b.node("Upsample", x, b.constant(scales), mode=mode)
    assert dense(assert_equals_source(write(tmp_path, b, mean_head(b, opset, x), opset)).report.nodes) == ["ReduceMean"]


def normalised(b, x, *sizes, **attributes):
    parameters = [b.weight(*sizes, shift=1.0), b.weight(*sizes), b.weight(*sizes)]
    variance = b.constant(np.abs(b.rng.standard_normal(sizes)) + 0.5)
    return b.node("BatchNormalization", x, *parameters, variance, epsilon=1e-3, **attributes)


@pytest.mark.parametrize("opset", [7, 8])
@pytest.mark.parametrize("spatial", [0, 1])
def test_batch_normalisation_of_cells(spatial, opset, tmp_path):
    """With spatial=0, each cell of each channel has numbers of its own. ONNX Runtime runs it, the converter refuses it."""
    b = Builder()
    sizes = (4,) if spatial else (4, HEIGHT, WIDTH)
    x = normalised(b, trunk(b), *sizes, spatial=spatial)
    assert dense(assert_equals_source(write(tmp_path, b, mean_head(b, opset, x), opset)).report.nodes) == ["ReduceMean"]


@pytest.mark.parametrize("spatial", [0, 1])
def test_batch_normalisation_of_rows(spatial, tmp_path):
    b = Builder()
    x = normalised(b, mean_head(b, 7, trunk(b)), 5, spatial=spatial)
    assert_equals_source(write(tmp_path, b, x, 7))


@pytest.mark.parametrize("opset", [7, 12])
@pytest.mark.parametrize("mask", [False, True])
def test_dropout(mask, opset, tmp_path):
    b = Builder()
    how = {"ratio": 0.4} if opset < 12 else {}
    ratio = [b.constant(0.4)] if opset >= 12 else []
    b.nodes.append(helper.make_node("Dropout", [trunk(b), *ratio], ["kept", "mask"] if mask else ["kept"], name="drop", **how))
    b.channels["kept"] = 4
    assert dense(assert_equals_source(write(tmp_path, b, mean_head(b, opset, "kept"), opset)).report.nodes) == ["ReduceMean"]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ImageScaler", {"bias": [0.1, 0.2, 0.3], "scale": 2.0}),
        ("Affine", {"alpha": 2.0, "beta": 0.25}),
        ("ScaledTanh", {"alpha": 2.0, "beta": 0.25}),
        ("ParametricSoftplus", {"alpha": 2.0, "beta": 0.25}),
    ],
)
@pytest.mark.parametrize("opset", [7, 9])
def test_operators_that_no_later_opset_has(op, attributes, opset, tmp_path):
    b = Builder()
    x = b.conv(b.node(op, "image", channels=CHANNELS, **attributes), 4)
    assert dense(assert_equals_source(write(tmp_path, b, mean_head(b, opset, x), opset)).report.nodes) == ["ReduceMean"]


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_reshape_that_is_written_for_one_image(batch, tmp_path):
    """Whether the file says that it takes others, or not."""
    b = Builder()
    x = b.node("Reshape", b.conv(trunk(b), 2, 6, strides=[3, 3]), b.constant([1, -1], np.int64))
    path = write(tmp_path, b, b.node("Gemm", x, b.weight(18, 5), b.weight(5)), 12, batch)
    assert dense(assert_equals_source(path).report.nodes) == ["Reshape", "Gemm"]


@pytest.mark.parametrize("how", ["arithmetic", "InstanceNormalization", "MeanVarianceNormalization"])
@pytest.mark.parametrize("opset", [9, 13, 18])
def test_standardisation_by_each_image_is_dense(how, opset, tmp_path):
    """Its own mean and deviation, over all pixels: a patch changes all that is made of them."""
    b = Builder()
    if how == "InstanceNormalization":
        x = b.node(how, "image", b.weight(CHANNELS, shift=1.0), b.weight(CHANNELS), channels=CHANNELS)
    elif how == "MeanVarianceNormalization":
        x = b.node(how, "image", axes=[1, 2, 3], channels=CHANNELS)
    else:

        def mean(x):
            axes = [1, 2, 3]
            return b.node("ReduceMean", x, b.constant(axes, np.int64)) if opset >= 18 else b.node("ReduceMean", x, axes=axes)

        centred = b.node("Sub", "image", mean("image"))
        deviation = b.node("Sqrt", b.node("Add", mean(b.node("Mul", centred, centred)), b.constant(1e-5)))
        x = b.node("Div", centred, deviation, channels=CHANNELS)
    nodes = assert_equals_source(write(tmp_path, b, mean_head(b, opset, b.conv(x, 4)), opset)).report.nodes
    assert not any(node.incremental for node in nodes)
    reason = {"arithmetic": "more than the channels of a cell", "InstanceNormalization": "takes in the whole map"}
    assert reason.get(how, "no region rule for operator MeanVarianceNormalization") in nodes[0].reason
