"""Model files that cannot be compiled: each is refused with its name, what was found and what to do."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from networks import Builder, save
from onnx import TensorProto, helper

import kcompiler
from kcompiler.passes.source.load import load
from kcompiler.runtime.errors import ModelError, UsageError


def write(tmp_path, inputs, nodes=None, outputs=None):
    nodes = nodes or [helper.make_node("Identity", [inputs[0].name if inputs else "c"], ["out"])]
    outputs = outputs or [helper.make_empty_tensor_value_info("out")]
    graph = helper.make_graph(nodes, "g", inputs, [])
    graph.output.extend(outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def refused(path, message, **options):
    with pytest.raises(ModelError, match=message) as error:
        load(path, **options)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path):
    refused(tmp_path / "absent.onnx", "no such file")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12", bytes(range(256))])
def test_not_onnx(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    refused(tmp_path / "model.onnx", "not an ONNX file")


def test_model_that_the_checker_rejects(tmp_path):
    path = write(tmp_path, [tensor("image", [1, 3, 8, 8])])
    model = onnx.load(path)
    model.graph.node[0].input[0] = "nowhere"
    onnx.save(model, path)
    refused(path, "ONNX Runtime cannot load it.*nowhere")


def test_no_input(tmp_path):
    constant = helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.zeros((1, 3, 4, 4), np.float32)))
    path = write(tmp_path, [], [constant, helper.make_node("Identity", ["c"], ["out"])])
    refused(path, "expected an input that is an image.*found 0")


def test_several_inputs(tmp_path):
    inputs = [tensor("image", [1, 3, 8, 8]), tensor("age", [1, 1])]
    path = write(tmp_path, inputs, [helper.make_node("Add", ["image", "age"], ["out"])])
    refused(path, r"beside the image image \[1, 3, 8, 8\] it reads age \[1, 1\].*--bind age=1")


def test_input_that_is_no_image(tmp_path):
    refused(write(tmp_path, [tensor("tokens", [1, 128])]), r"found 1: tokens \[1, 128\]")


@pytest.mark.parametrize("kind", ["STRING", "COMPLEX64"])
def test_input_that_is_no_numbers(tmp_path, kind):
    path = write(tmp_path, [tensor("image", [1, 3, 8, 8], getattr(TensorProto, kind))])
    refused(path, f"image is {kind}, expected numbers")


def test_open_size_needs_an_input_shape(tmp_path):
    path = write(tmp_path, [tensor("image", ["n", 3, "h", "w"])])
    refused(path, r"open sizes \[3, 'h', 'w'\].*--input-shape")
    assert load(path, (3, 20, 24)).shape == (3, 20, 24)
    assert load(path, (1, 3, 20, 24)).shape == (3, 20, 24)
    refused(path, "says", input_shape=(4, 20, 24))
    refused(path, r"is not \[1,\]C,H,W", input_shape=(20, 24))
    refused(path, r"is not \[1,\]C,H,W", input_shape=(3, 0, 24))


def test_external_weights_missing_or_outside(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    save("chain", folder / "whole.onnx")
    model = onnx.load(folder / "whole.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.bin", size_threshold=0)
    assert load(folder / "model.onnx").shape == (3, 20, 20)
    before = load(folder / "model.onnx").sha256
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-1] + b"\x01")
    assert load(folder / "model.onnx").sha256 != before, "weights are part of what was compiled"
    (folder / "model.bin").rename(tmp_path / "model.bin")
    refused(folder / "model.onnx", "is missing")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for weight in model.graph.initializer:
        weight.external_data[0].value = "../model.bin"
    onnx.save(model, folder / "escape.onnx")
    refused(folder / "escape.onnx", "outside the model's folder")


@pytest.mark.parametrize(("how", "message"), [("symlink", "a symbolic link"), ("link", "several names")])
def test_external_weights_behind_links(how, message, tmp_path):
    """They might be anybody's, wherever the link lies."""
    save("chain", tmp_path / "whole.onnx")
    model = onnx.load(tmp_path / "whole.onnx")
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="model.bin", size_threshold=0)
    (tmp_path / "model.bin").rename(tmp_path / "other.bin")
    getattr(os, how)(tmp_path / "other.bin", tmp_path / "model.bin")
    refused(tmp_path / "model.onnx", f"lies in model.bin, which is .*{message}")


def test_several_outputs_must_be_chosen_from(tmp_path):
    builder = Builder()
    x = builder.conv("image", 4)
    model = builder.model(x, 12, 12)
    model.graph.output.append(helper.make_empty_tensor_value_info(x))
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="has 2 outputs"):
        kcompiler.compile(tmp_path / "model.onnx", patch=3)
    with pytest.raises(UsageError, match="no output 'scores'"):
        kcompiler.compile(tmp_path / "model.onnx", patch=3, output="scores")
    bundle = kcompiler.compile(tmp_path / "model.onnx", patch=3, output=x)
    assert bundle.manifest.classes == 4 * 10 * 10
    assert bundle.manifest.output == x


@pytest.mark.parametrize(
    ("readers", "layout"),
    [
        (["first"], "NHWC"),
        (["first", "first", "first"], "NHWC"),
        (["pool"], "NCHW"),
        (["first", "pool"], "NCHW"),
        (["first", "other"], None),
        (["other", "first", "first"], None),
        (["other"], None),
    ],
)
def test_layout_of_an_image_with_several_readers(tmp_path, readers, layout):
    perms = {"first": [0, 3, 1, 2], "other": [0, 2, 1, 3]}
    names = [f"out_{number}" for number in range(len(readers))]
    cells = helper.make_node("Abs", ["image"], ["cells"])
    nodes = [
        helper.make_node("Transpose", ["cells"], [name], perm=perms[reader])
        if reader in perms
        else helper.make_node("GlobalAveragePool", ["cells"], [name])
        for name, reader in zip(names, readers, strict=True)
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    path = write(tmp_path, [tensor("image", [1, 8, 9, 3])], [cells, *nodes], outputs)
    source = load(path)
    assert source.layout == (layout or "NHWC"), "its last axis tells where its readers do not"
    assert [note.split("--")[0] for note in source.notes] == (
        [] if layout else ["image input image [1, 8, 9, 3] is taken as NHWC, by the size of its last axis; "]
    )
    assert load(path, layout="NCHW").shape == (8, 9, 3)
    assert load(path, layout="NCHW").notes == load(path, layout="NHWC").notes == ()
    with pytest.raises(UsageError, match="layout is 'nhwc'"):
        load(path, layout="nhwc")


@pytest.mark.parametrize(
    ("sizes", "given", "expected"),
    [
        (["n", 3, 8, 9], None, ("NCHW", (3, 8, 9))),
        (["n", 1, 8, 9], None, ("NCHW", (1, 8, 9))),
        (["n", 8, 9, 3], None, ("NHWC", (3, 8, 9))),
        (["n", 8, 9, 1], None, ("NHWC", (1, 8, 9))),
        ([8, 9, 3], None, ("NHWC", (3, 8, 9))),
        (["n", "h", "w", 3], (8, 9, 3), ("NHWC", (3, 8, 9))),
        (["n", "a", "b", "c"], (8, 9, 3), ("NHWC", (3, 8, 9))),
        (["n", "a", "b", "c"], (3, 8, 9), ("NCHW", (3, 8, 9))),
        (["n", 8, 9, 10], None, ("NCHW", (8, 9, 10))),
        (["n", 4, 9, 4], None, ("NCHW", (4, 9, 4))),
        (["n", 3, 9, 3], None, None),
        (["n", 1, 9, 1], None, None),
        (["n", 1, 9, 3], None, None),
        (["n", 8, 9, 4], None, None),
        (["n", 3, "h", "w"], (3, 9, 3), None),
    ],
)
def test_layout_of_an_image_whose_readers_do_not_tell(tmp_path, sizes, given, expected):
    path = write(tmp_path, [tensor("image", sizes)])
    if expected is None:
        refused(path, "may have its channels first or last.*--layout NHWC or --layout NCHW", input_shape=given)
        return
    source = load(path, given)
    assert (source.layout, source.shape) == expected
    assert len(source.notes) == (source.layout == "NHWC")


@pytest.mark.parametrize(
    ("sizes", "example"),
    [
        (["n", 3, 48, "w"], "3,48,224"),
        (["n", 3, "h", 192], "3,224,192"),
        (["n", 1, "h", "w"], "1,224,224"),
        (["n", "c", 48, 192], "3,48,192"),
        (["n", "h", "w", 3], "224,224,3"),
        (["n", "h", 192, 1], "224,192,1"),
        (["n", "c", "h", "w"], "3,224,224"),
    ],
)
def test_errors_about_sizes_fill_in_what_the_model_states(tmp_path, sizes, example):
    path = write(tmp_path, [tensor("image", sizes)])
    refused(path, f"open sizes .*, for example --input-shape {example}$")
    if sizes[1:] != ["c", "h", "w"]:
        wrong = tuple(size + 1 if isinstance(size, int) else 7 for size in sizes[1:])
        layout = "NHWC" if example.endswith((",3", ",1")) else "NCHW"
        refused(path, f"for example --input-shape {example}$", input_shape=wrong, layout=layout)


@pytest.mark.parametrize("place", ["attribute", "body"])
def test_weights_in_files_count_wherever_they_are(tmp_path, place):
    """Constants and bodies of If hold weights as well."""

    def written(seed):
        values = np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)
        constant = helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(values, "v"))
        nodes = [constant, helper.make_node("Add", ["image", "w"], ["out"])]
        if place == "body":
            bodies = [
                helper.make_graph([constant, helper.make_node(op, ["image", "w"], ["y"])], op, [], [tensor("y", [1, 3, 8, 8])])
                for op in ("Add", "Sub")
            ]
            truth = helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.array(True)))
            nodes = [truth, helper.make_node("If", ["c"], ["out"], then_branch=bodies[0], else_branch=bodies[1])]
        path = write(tmp_path, [tensor("image", [1, 3, 8, 8])], nodes, [tensor("out", [1, 3, 8, 8])])
        (tmp_path / "w.bin").unlink(missing_ok=True)
        model = onnx.load(path)
        onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=200, convert_attribute=True)
        return load(path).sha256

    assert written(0) != written(1)
    assert written(0) == written(0)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"w\.bin"):
        load(tmp_path / "model.onnx")
