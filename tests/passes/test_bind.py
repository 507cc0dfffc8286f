"""Models that read more than an image: bound by name, optional, unread; exact for the values that they are compiled for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper, numpy_helper
from source_file import HEIGHT, PATCH, WIDTH, assert_equals_source, mean_head, save_model
from typer.testing import CliRunner

import kcompiler
from kcompiler.cli import app
from kcompiler.commands.tune import _key
from kcompiler.options import Options
from kcompiler.passes.source.load import load
from kcompiler.pipeline import compile_file
from kcompiler.runtime.bundle.manifest_file import read_manifest
from kcompiler.runtime.errors import ModelError, UsageError
from kcompiler.runtime.tuning.trials import Goal

SIZE = [CHANNELS, HEIGHT, WIDTH]


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def options(**bind):
    return Options(patch=PATCH, dense_share=2.0, bind=bind)


def row(b, x="image"):
    """Five numbers of the image."""
    return mean_head(b, 18, b.relu(b.conv(x, 4, pads=[1, 1, 1, 1])))


def joined(b, other, width):
    """The image's numbers beside others, mixed."""
    x = b.node("Concat", row(b), other, axis=1)
    return b.node("Softmax", b.node("Gemm", x, b.weight(5 + width, 4), b.weight(4)))


def incremental(nodes):
    return {node.operator for node in nodes if node.incremental}


@pytest.mark.parametrize("batch", [1, "N", -1], ids=str)
@pytest.mark.parametrize("shape", ["[1, 1]", "['N', 1]", "[-1, 1]"])
def test_a_number_beside_the_image(batch, shape, tmp_path):
    b = Builder()
    scaled = b.node("Div", "age", b.constant(100.0))
    path = save_model(tmp_path, b, joined(b, scaled, 1), [tensor("image", [batch, *SIZE]), tensor("age", eval(shape))])
    nodes = assert_equals_source(path, bind={"age": 57}, feeds={"age": np.array([[57]], np.float32)}).report.nodes
    assert incremental(nodes) == {"Conv", "Relu"}
    bundle = compile_file(path, options(age=57.0))
    assert bundle.manifest.largest_batch > 1
    assert bundle.manifest.bound["age"].values == (57.0,)


@pytest.mark.parametrize("first", [False, True])
def test_an_array_beside_the_image(first, tmp_path):
    b = Builder()
    features = np.random.default_rng(0).standard_normal((1, 70)).astype(np.float32)
    x = joined(b, b.relu(b.node("MatMul", "features", b.weight(70, 3))), 3)
    inputs = [tensor("features", ["N", 70]), tensor("image", ["N", *SIZE])]
    path = save_model(tmp_path, b, x, inputs if first else inputs[::-1])
    for given in (features, features[0], features.tolist()):
        nodes = assert_equals_source(path, bind={"features": given}, feeds={"features": features}).report.nodes
        assert incremental(nodes) == {"Conv", "Relu"}
    bound = compile_file(path, options(features=features)).manifest.bound["features"]
    assert (bound.type, bound.shape, bound.values, len(bound.sha256)) == ("FLOAT", (1, 70), None, 64)


@pytest.mark.parametrize("how", ["Mul", "Concat"])
def test_a_map_beside_the_image(how, tmp_path):
    b = Builder()
    mask = np.random.default_rng(0).random((1, 1, HEIGHT, WIDTH)).astype(np.float32)
    x = b.node(how, "image", "mask", channels=CHANNELS + (how == "Concat"), **({"axis": 1} if how == "Concat" else {}))
    path = save_model(tmp_path, b, row(b, x), [tensor("image", ["N", *SIZE]), tensor("mask", ["N", 1, HEIGHT, WIDTH])])
    with pytest.raises(ModelError, match=r"2 inputs have the four axes.*--bind mask=array.npy"):
        compile_file(path, options())
    nodes = assert_equals_source(path, bind={"mask": mask}, feeds={"mask": mask}).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


@pytest.mark.parametrize("kind", ["scalar", "one", "row"])
def test_numbers_of_other_shapes(kind, tmp_path):
    """A temperature: without axes, with one, or a row for each image."""
    b = Builder()
    shape = {"scalar": [], "one": [1], "row": ["N", 1]}[kind]
    x = b.node("Softmax", b.node("Div", row(b), "temperature"))
    path = save_model(tmp_path, b, x, [tensor("image", ["N", *SIZE]), tensor("temperature", shape)])
    feed = np.full([1] * len(shape), 0.3, np.float32)
    nodes = assert_equals_source(path, bind={"temperature": 0.3}, feeds={"temperature": feed}).report.nodes
    assert incremental(nodes) == {"Conv", "Relu"}


@pytest.mark.parametrize("training", [False, True])
def test_a_switch(training, tmp_path):
    """Dropout that may be switched on is only compiled off: what ONNX Runtime runs at random is no reference."""
    b = Builder()
    x = b.node("Dropout", row(b), b.constant(0.5), "training")
    path = save_model(tmp_path, b, x, [tensor("image", ["N", *SIZE]), tensor("training", [], TensorProto.BOOL)])
    if training:
        with pytest.raises(ModelError, match=r"is random in training mode.*inference mode"):
            compile_file(path, options(training=True))
        return
    nodes = assert_equals_source(path, bind={"training": False}, feeds={"training": np.array(False)}).report.nodes
    assert incremental(nodes) == {"Conv", "Relu"}


def with_default(tmp_path, given):
    b = Builder()
    path = save_model(tmp_path, b, b.node("Mul", row(b), "gain"), [tensor("image", ["N", *SIZE]), tensor("gain", [1])])
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([given], np.float32), "gain"))
    onnx.save(model, path)
    return path


def test_optional_inputs_have_defaults(tmp_path):
    path = with_default(tmp_path, 3.0)
    assert_equals_source(path)
    nodes = assert_equals_source(path, bind={"gain": 0.5}, feeds={"gain": np.array([0.5], np.float32)}).report.nodes
    assert incremental(nodes) == {"Conv", "Relu"}


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING])
@pytest.mark.parametrize("shape", [[], [1], ["N", 3, 7], [1, 3, HEIGHT, WIDTH]], ids=str)
def test_unread_inputs_need_no_value(kind, shape, tmp_path):
    b = Builder()
    path = save_model(tmp_path, b, row(b), [tensor("unread", shape, kind), tensor("image", ["N", *SIZE])])
    zeros = np.zeros([size if isinstance(size, int) else 1 for size in shape], helper.tensor_dtype_to_np_dtype(kind))
    if kind == TensorProto.STRING:
        zeros = np.full(zeros.shape, "", object)
    assert_equals_source(path, feeds={"unread": zeros})


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        (
            {},
            r"beside the image image \['N', 3, 12, 14\] it reads age \['N', 2\], count \[\]; .*--bind age=age.npy --bind count=1",
        ),
        ({"age": 1}, r"it reads count \[\]; say what to compile it for: --bind count=1$"),
        ({"age": [1, 2, 3], "count": 1}, r"input age is FLOAT \['N', 2\], the value bound to it has shape \[3\]"),
        ({"age": np.zeros((4, 2)), "count": 1}, r"a row for each image, the value bound to it has 4 rows; expected 1"),
        ({"age": 1, "count": 1.5}, r"input count is INT64 \[\], which cannot hold 1.5"),
        ({"age": "old", "count": 1}, r"input age is FLOAT \['N', 2\], which cannot hold 'old'"),
        ({"age": 1, "count": 1, "sex": 0}, r"has no input 'sex' to bind; its inputs are image \['N', 3, 12, 14\], age"),
    ],
)
def test_refusals_name_the_input(bind, message, tmp_path):
    b = Builder()
    x = b.node("Add", row(b), b.node("MatMul", "age", b.weight(2, 5)))
    x = b.node("Mul", x, b.node("Cast", "count", to=TensorProto.FLOAT))
    inputs = [tensor("image", ["N", *SIZE]), tensor("age", ["N", 2]), tensor("count", [], TensorProto.INT64)]
    path = save_model(tmp_path, b, x, inputs)
    with pytest.raises((ModelError, UsageError), match=message) as error:
        load(path, bind=bind)
    assert str(path) in str(error.value)


def test_command_line(tmp_path):
    b = Builder()
    x = b.node("Add", row(b), b.node("MatMul", "features", b.weight(2, 5)))
    x = b.node("Mul", x, b.node("Cast", "on", to=TensorProto.FLOAT))
    inputs = [tensor("image", ["N", *SIZE]), tensor("features", ["N", 2]), tensor("on", [1], TensorProto.BOOL)]
    path = save_model(tmp_path, b, x, inputs)
    np.save(tmp_path / "features.npy", np.array([[1, 2]], np.float32))
    runner = CliRunner()
    common = [str(path), "--patch", "4", "--bind", "on=true", "--bind"]
    for value in ("1,2", f"{tmp_path}/features.npy"):
        result = runner.invoke(app, ["compile", *common, f"features={value}", "-o", str(tmp_path / "out.kc"), "--force"])
        assert result.exit_code == 0, result.output
        bound = read_manifest(tmp_path / "out.kc").bound
        assert (bound["features"].values, bound["on"].values) == ((1.0, 2.0), (True,))
    assert runner.invoke(app, ["inspect", *common, "features=1,2"]).exit_code == 0
    for wrong in ("features", "=1", "on=false"):
        assert runner.invoke(app, ["compile", *common, wrong]).exit_code == 2
    kcompiler.compile(path, patch=4, bind={"features": [1, 2], "on": True})


def test_exact_maps_that_tuning_keeps_are_of_the_values_bound(tmp_path):
    """A model compiled again with another age, into the same place, does not take the maps of the first."""
    b = Builder()
    scaled = b.node("Div", "age", b.constant(100.0))
    path = save_model(tmp_path, b, joined(b, scaled, 1), [tensor("image", [1, *SIZE]), tensor("age", [1, 1])])
    image = np.zeros((3, *SIZE[1:]), np.float32)
    keys = {
        _key(kcompiler.load(compile_file(path, options(age=age)), threads=1), image, Goal(stride=2)) for age in (57.0, 58.0, 57.0)
    }
    assert len(keys) == 2
