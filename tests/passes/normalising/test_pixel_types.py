"""Sources whose image is of another type than float32, channels first or last: exact, and incremental where they cast it."""

from __future__ import annotations

import numpy as np
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from source_file import HEIGHT, PATCH, WIDTH, assert_equals_source, mean_head, save_model

import kcompiler
from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs.elements import NAMES, Element

KINDS = {
    "uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "uint16": TensorProto.UINT16, "int16": TensorProto.INT16,
    "int32": TensorProto.INT32, "int64": TensorProto.INT64, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE,
}  # fmt: skip
ALONE = Options(patch=PATCH, dense_share=2.0)


def declared(kind, layout="NCHW", batch=1):
    sizes = [CHANNELS, HEIGHT, WIDTH] if layout == "NCHW" else [HEIGHT, WIDTH, CHANNELS]
    return helper.make_tensor_value_info("image", KINDS[kind], [batch, *sizes])


def picture(kind):
    rng = np.random.default_rng(1)
    if "float" in kind:
        return rng.standard_normal((CHANNELS, HEIGHT, WIDTH)).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(max(limits.min, 0), min(limits.max, 255), (CHANNELS, HEIGHT, WIDTH), endpoint=True).astype(kind)


def front(b, layout, order):
    """Cast, Mul, Sub and, of a channels-last image, Transpose, in the order of their first letters."""
    x = "image"
    channels = [CHANNELS, 1, 1] if layout == "NCHW" else [CHANNELS]
    for step in order:
        if step == "C":
            x = b.node("Cast", x, to=TensorProto.FLOAT, channels=CHANNELS)
        elif step == "M":
            x = b.node("Mul", x, b.constant(1 / 64), channels=CHANNELS)
        elif step == "S":
            x = b.node("Sub", x, b.constant(np.reshape([0.4, 0.5, 0.6], channels)), channels=CHANNELS)
        elif layout == "NHWC":
            x = b.node("Transpose", x, perm=[0, 3, 1, 2], channels=CHANNELS)
            channels = [CHANNELS, 1, 1]
    return x


def network(b, x):
    return mean_head(b, 18, b.relu(b.conv(x, 4, pads=[1, 1, 1, 1])))


@pytest.mark.parametrize("kind", KINDS)
def test_types_that_are_cast_are_incremental(kind, tmp_path):
    b = Builder()
    path = save_model(tmp_path, b, network(b, front(b, "NCHW", "CMS")), [declared(kind)])
    image = picture(kind) * np.dtype(kind).type(64 if "float" in kind else 1)
    nodes = assert_equals_source(path, image=image, fill=(7, 0, 3)).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


@pytest.mark.parametrize("order", ["CMST", "TCMS", "CTMS", "CMTS"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_arithmetic_in_front_is_incremental(order, layout, tmp_path):
    b = Builder()
    path = save_model(tmp_path, b, network(b, front(b, layout, order)), [declared("uint8", layout, "N")])
    nodes = assert_equals_source(path, image=picture("uint8"), fill=(7, 0, 255)).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


def test_pixels_that_are_moved_before_they_are_cast(tmp_path):
    b = Builder()
    flipped = b.node("Gather", "image", b.constant([2, 1, 0], np.int64), axis=1, channels=CHANNELS)
    padded = b.node("Pad", flipped, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), b.constant(0, np.uint8), channels=CHANNELS)
    path = save_model(tmp_path, b, network(b, front_cast(b, padded)), [declared("uint8")])
    nodes = assert_equals_source(path, image=picture("uint8"), fill=(7, 0, 255)).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


def front_cast(b, x):
    return b.node("Mul", b.node("Cast", x, to=TensorProto.FLOAT, channels=CHANNELS), b.constant(1 / 64), channels=CHANNELS)


@pytest.mark.parametrize(
    ("op", "numbers", "attributes"),
    [
        ("Clip", [10, 200], {}),
        ("Max", [30], {}),
        ("Min", [90], {}),
        ("MaxPool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("Resize", None, {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ],
)
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_pixels_that_are_chosen_from_before_they_are_cast(op, numbers, attributes, kind, tmp_path):
    b = Builder()
    others = ["", b.constant([1, 1, 2, 3])] if numbers is None else [b.constant(n % 128, np.dtype(kind).type) for n in numbers]
    x = front_cast(b, b.node(op, "image", *others, channels=CHANNELS, **attributes))
    path = save_model(tmp_path, b, network(b, x), [declared(kind)])
    nodes = assert_equals_source(path, image=picture(kind), fill=(7, 0, 99)).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


def test_linear_resizes_of_whole_numbers_round_and_are_dense(tmp_path):
    b = Builder()
    x = front_cast(b, b.node("Resize", "image", "", b.constant([1, 1, 2, 2]), mode="linear", channels=CHANNELS))
    nodes = assert_equals_source(
        save_model(tmp_path, b, network(b, x), [declared("uint8")]), image=picture("uint8"), fill=(7, 0, 99)
    ).report.nodes
    assert not any(node.incremental for node in nodes)


def test_dequantised_pixels(tmp_path):
    b = Builder()
    x = b.node("DequantizeLinear", "image", b.constant(0.0123), b.constant(113, np.uint8), channels=CHANNELS)
    nodes = assert_equals_source(
        save_model(tmp_path, b, network(b, x), [declared("uint8")]), image=picture("uint8"), fill=(7, 0, 255)
    ).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT16])
def test_casts_of_a_float32_image_are_its_own(kind, tmp_path):
    """They round its pixels, or cut them off."""
    b = Builder()
    x = b.node("Cast", "image", to=kind, channels=CHANNELS)
    x = b.node("Cast", x, to=TensorProto.FLOAT, channels=CHANNELS)
    x = b.node("Flatten", b.conv(x, 2, 5, strides=[3, 3]))
    path = save_model(tmp_path, b, x, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", CHANNELS, HEIGHT, WIDTH])])
    image = np.random.default_rng(0).uniform(0, 200, (CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    nodes = assert_equals_source(path, image=image, fill=(3.7, 99.2, 150.6)).report.nodes
    assert nodes[0].operator == "Cast"
    assert "uint8" in nodes[0].reason or "float16" in nodes[0].reason


def test_arithmetic_on_whole_numbers_is_exact_and_dense(tmp_path):
    """Differences of uint8 wrap around."""
    b = Builder()
    x = b.node("Sub", "image", b.constant(100, np.uint8), channels=CHANNELS)
    nodes = assert_equals_source(
        save_model(tmp_path, b, network(b, front_cast(b, x)), [declared("uint8")]), image=picture("uint8"), fill=(7, 0, 255)
    ).report.nodes
    assert not any(node.incremental for node in nodes)
    assert any("uint8" in node.reason for node in nodes)


def test_models_in_float64_are_dense(tmp_path):
    b = Builder()
    x = b.node("Sub", b.node("Mul", "image", b.constant(0.25, np.float64)), b.constant(0.5, np.float64))
    x = b.node("MatMul", b.node("Flatten", x), b.constant(b.rng.standard_normal((504, 5)) / 20, np.float64))
    value = helper.make_tensor_value_info(x, TensorProto.DOUBLE, None)
    path = save_model(tmp_path, b, x, [declared("float64")], value=value)
    nodes = assert_equals_source(path, image=picture("float64")).report.nodes
    assert not any(node.incremental for node in nodes)
    assert any("is float64, regions are float32" in node.reason for node in nodes)


def test_models_in_float16_are_computed_in_float32(tmp_path):
    """As ONNX Runtime does on the CPU, which has no kernels for them, but for the output, which is rounded."""
    b = Builder()
    x = b.node("Sub", b.node("Mul", "image", b.constant(0.25, np.float16)), b.constant(0.5, np.float16))
    x = b.node("Conv", x, b.constant(b.rng.standard_normal((4, CHANNELS, 3, 3)) * 0.2, np.float16))
    x = b.node("MatMul", b.node("Flatten", b.relu(x)), b.constant(b.rng.standard_normal((480, 5)) / 20, np.float16))
    x = b.node("Softmax", x)
    value = helper.make_tensor_value_info(x, TensorProto.FLOAT16, None)
    path = save_model(tmp_path, b, x, [declared("float16")], value=value)
    nodes = assert_equals_source(path, image=picture("float16"), fill=(0.5, -1.25, 3), rtol=1e-3).report.nodes
    assert any(node.incremental for node in nodes if node.operator == "Conv")


def uint8_bundle(tmp_path, **options):
    b = Builder()
    path = save_model(tmp_path, b, network(b, front(b, "NCHW", "CMS")), [declared("uint8")])
    return kcompiler.compile(path, patch=PATCH, **options)


def test_images_and_fills_of_whole_numbers(tmp_path):
    explainer = kcompiler.load(uint8_bundle(tmp_path), providers=["cpu"])
    assert explainer.manifest.element == "uint8"
    image = picture("uint8")
    as_float = explainer.outputs(image.astype(np.float32), [(0, 0)])
    np.testing.assert_array_equal(explainer.outputs(image, [(0, 0)]), as_float)
    with pytest.raises(ImageError, match=r"takes uint8, expected whole numbers from 0 to 255; found [0-9.]*5 at channel"):
        explainer.outputs(image.astype(np.float32) / 2, [(0, 0)])
    with pytest.raises(ImageError, match=r"takes uint8, expected whole numbers from 0 to 255; found 256.0"):
        explainer.outputs(np.full(image.shape, 256, np.float32), [(0, 0)])
    with pytest.raises(ImageError, match="is int64, expected float32 or uint8"):
        explainer.outputs(image.astype(np.int64), [(0, 0)])
    with pytest.raises(UsageError, match=r"fill: the model takes uint8.*found 0.5"):
        explainer.outputs(image, [(0, 0)], fill=0.5)


@pytest.mark.parametrize("fill", ["mean", "blur", "noise", "patch-mean", "marginal", "conditional"])
def test_fills_that_are_made_are_rounded(fill, tmp_path):
    explainer = kcompiler.load(uint8_bundle(tmp_path), providers=["cpu"])
    explainer.explain(picture("uint8"), stride=5, fill=fill)
    kept = []
    engine = explainer.exact
    covered_by = engine._covered_by
    engine._covered_by = lambda made, baseline: (kept.append(made), covered_by(made, baseline))[1]
    engine.evaluate_all(engine.baseline(picture("uint8")[None].astype(np.float32), fill), np.array([[0, 0], [4, 4]]))
    assert all((made == np.clip(np.rint(made), 0, 255)).all() for made in kept)


@pytest.mark.parametrize("name", NAMES)
def test_fitted_numbers_survive_the_type(name):
    element = Element(name)
    numbers = np.random.default_rng(0).normal(0, 100, 1000).astype(np.float32)
    fitted = element.fitted(numbers)
    given = element.given(fitted)
    back = (given.astype(np.uint32) << 16).view(np.float32) if name == "bfloat16" else given.astype(np.float32)
    np.testing.assert_array_equal(back, fitted)
    np.testing.assert_array_equal(element.fitted(fitted), fitted)
    if name == "bfloat16":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        np.testing.assert_array_equal(numbers.astype(ml_dtypes.bfloat16).astype(np.float32), fitted)


def test_bfloat16_image(tmp_path):
    b = Builder()
    path = save_model(tmp_path, b, network(b, front(b, "NCHW", "CMS")), [
        helper.make_tensor_value_info("image", TensorProto.BFLOAT16, [1, CHANNELS, HEIGHT, WIDTH])
    ])  # fmt: skip
    bundle = compile_file(path, ALONE)
    assert [node.operator for node in bundle.report.nodes if not node.incremental] == ["ReduceMean"]
