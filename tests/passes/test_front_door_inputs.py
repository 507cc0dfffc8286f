"""Ways that inputs meet graphs which nobody thinks of: bodies, functions, names, values that are no tensors, other axes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from source_file import HEIGHT, WIDTH, assert_equals_source, mean_head, save_model

from kcompiler.passes.source.load import load
from kcompiler.runtime.errors import ModelError

SIZE = [CHANNELS, HEIGHT, WIDTH]


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


IMAGE = tensor("image", ["N", *SIZE])


def dense(nodes):
    return [node.operator for node in nodes if not node.incremental]


def body(name, *nodes):
    return helper.make_graph(list(nodes), name, [], [tensor("out", None)])


def test_a_bound_input_that_only_bodies_read(tmp_path):
    b = Builder()
    x = b.conv("image", 4)
    mean = b.node("Greater", b.node("ReduceMean", x, keepdims=0), b.constant(0.0))
    branches = [body(op, helper.make_node(op, [x, "gain"], ["out"])) for op in ("Mul", "Add")]
    x = b.node("If", mean, then_branch=branches[0], else_branch=branches[1], channels=4)
    path = save_model(tmp_path, b, mean_head(b, 18, x), [IMAGE, tensor("gain", [])])
    with pytest.raises(ModelError, match=r"it reads gain \[\].*--bind gain=1"):
        load(path)
    nodes = assert_equals_source(path, bind={"gain": 2.0}, feeds={"gain": np.array(2.0, np.float32)}).report.nodes
    assert not any(node.incremental for node in nodes)


def test_an_image_of_whole_numbers_that_only_bodies_read(tmp_path):
    b = Builder()
    cast = helper.make_node("Cast", ["image"], ["plain"], to=TensorProto.FLOAT)
    branches = [body(op, cast, helper.make_node(op, ["plain"], ["out"])) for op in ("Identity", "Neg")]
    x = b.node("If", "flipped", then_branch=branches[1], else_branch=branches[0], channels=CHANNELS)
    x = mean_head(b, 18, b.conv(b.node("Mul", x, b.constant(1 / 64), channels=CHANNELS), 4))
    inputs = [tensor("image", ["N", *SIZE], TensorProto.UINT8), tensor("flipped", [], TensorProto.BOOL)]
    image = np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)
    for flipped in (True, False):
        nodes = assert_equals_source(
            save_model(tmp_path, b, x, inputs), bind={"flipped": flipped}, feeds={"flipped": np.array(flipped)},
            image=image, fill=(3, 9, 255),
        ).report.nodes  # fmt: skip
        assert dense(nodes) == ["ReduceMean"]


@pytest.mark.parametrize("kind", ["sequence", "element", "optional"])
def test_values_that_are_no_tensors(kind, tmp_path):
    b = Builder()
    x = b.conv("image", 4)
    pair = {
        "sequence": (helper.make_node("SplitToSequence", [x], ["held"], axis=1, keepdims=1), "ConcatFromSequence"),
        "element": (helper.make_node("SequenceConstruct", [x, x], ["held"]), "SequenceAt"),
        "optional": (helper.make_node("Optional", [x], ["held"]), "OptionalGetElement"),
    }[kind]
    b.nodes.append(pair[0])
    given = ["held", b.constant(0, np.int64)] if kind == "element" else ["held"]
    attributes = {"axis": 1} if kind == "sequence" else {}
    x = b.node(pair[1], *given, channels=4, **attributes)
    nodes = assert_equals_source(save_model(tmp_path, b, mean_head(b, 18, x), [IMAGE])).report.nodes
    assert next(node for node in nodes if node.operator == pair[0].op_type).reason == (
        f"no region rule for operator {pair[0].op_type}"
    )


def test_functions_of_the_model(tmp_path):
    b = Builder()
    x = b.node("Twice", b.conv("image", 4), domain="local")
    path = save_model(tmp_path, b, mean_head(b, 18, x), [IMAGE], domains=["local"])
    model = onnx.load(path)
    twice = [helper.make_node("Add", ["x", "x"], ["y"])]
    model.functions.append(helper.make_function("local", "Twice", ["x"], ["y"], twice, [helper.make_opsetid("", 18)]))
    onnx.save(model, path)
    assert dense(assert_equals_source(path).report.nodes) == ["ReduceMean"]


@pytest.mark.parametrize("name", ["positions", "fill", "batch", "table/x", "image/uint8"])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.UINT8])
def test_images_of_any_name(name, kind, tmp_path):
    b = Builder()
    b.channels[name] = CHANNELS
    x = b.node("Mul", b.node("Cast", name, to=TensorProto.FLOAT, channels=CHANNELS), b.constant(1 / 64), channels=CHANNELS)
    path = save_model(tmp_path, b, mean_head(b, 18, b.conv(x, 4)), [tensor(name, ["N", *SIZE], kind)])
    image = np.random.default_rng(0).integers(0, 256, SIZE).astype(helper.tensor_dtype_to_np_dtype(kind))
    assert dense(assert_equals_source(path, image=image, fill=(3, 9, 255)).report.nodes) == ["ReduceMean"]


def test_two_images_of_which_one_is_bound(tmp_path):
    b = Builder()
    b.channels["other"] = CHANNELS
    x = b.node("Sub", mean_head(b, 18, b.conv("image", 4)), mean_head(b, 18, b.conv("other", 4)))
    path = save_model(tmp_path, b, x, [tensor("other", ["N", *SIZE]), IMAGE])
    other = np.random.default_rng(3).standard_normal((1, *SIZE)).astype(np.float32)
    nodes = assert_equals_source(path, bind={"other": other}, feeds={"other": other}).report.nodes
    assert dense(nodes) == ["ReduceMean", "Sub"]


def test_a_state_whose_batch_is_not_first(tmp_path):
    """Values that hold the batch in another place cannot be freed of it: image by image, exact."""
    b = Builder()
    x = b.node("Reshape", b.conv("image", 4, 5, strides=[4, 4]), b.constant([0, 4, -1], np.int64))
    x = b.node("Transpose", x, perm=[2, 0, 1])
    weights = [b.weight(1, 9, 4), b.weight(1, 9, 3)]
    b.nodes.append(helper.make_node("GRU", [x, *weights, "", "", "state"], ["all", "last"], hidden_size=3, name="gru"))
    x = b.node("Squeeze", "last", b.constant([0], np.int64))
    state = np.full((1, 1, 3), 0.3, np.float32)
    path = save_model(tmp_path, b, x, [IMAGE, tensor("state", [1, "N", 3])])
    nodes = assert_equals_source(path, bind={"state": state}, feeds={"state": state}).report.nodes
    assert not any(node.incremental for node in nodes)
