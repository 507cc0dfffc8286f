"""From the command line to the map where the source takes whole numbers, channels last, as exports that preprocess inside do."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from PIL import Image
from source_file import cover_by_hand, run_file
from typer.testing import CliRunner

from kcompiler.cli import app

HEIGHT, WIDTH, PATCH = 18, 20, 4
RECIPE = {"size": [HEIGHT, WIDTH], "resize": "stretch", "scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1], "channel_order": "RGB"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of uint8 pixels, its bundle, and pictures of another size."""
    folder = tmp_path_factory.mktemp("whole")
    b = Builder()
    x = b.node("Cast", "image", to=TensorProto.FLOAT, channels=CHANNELS)
    x = b.node("Div", b.node("Sub", x, b.constant([120, 110, 100])), b.constant(64.0), channels=CHANNELS)
    x = b.relu(b.conv(b.node("Transpose", x, perm=[0, 3, 1, 2], channels=CHANNELS), 4))
    x = b.node("Softmax", b.node("Flatten", b.node("GlobalAveragePool", b.conv(x, 5))))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", HEIGHT, WIDTH, CHANNELS])
    graph = helper.make_graph(
        b.nodes, "tiny", [image], [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 5])], b.weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "model.onnx")
    rng = np.random.default_rng(0)
    for name in ("picture.png", "other.png"):
        Image.fromarray(rng.integers(0, 256, (31, 29, 3)).astype(np.uint8)).save(folder / name)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    run("compile", folder / "model.onnx", "--patch", PATCH, "--preprocessing", folder / "recipe.json", "-o", folder / "model.kc")
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("fill", ["0", "200,100,7", "blur", "other.png"])
def test_maps_of_pictures_are_those_of_the_source(folder, fill, tmp_path):
    """What is resized is rounded, and so is what a fill makes."""
    fill = str(folder / fill) if fill.endswith("png") else fill
    run("explain", folder / "model.kc", folder / "picture.png", "-o", tmp_path, "--stride", 7, "--fill", fill, "--target", 2,
        "--score", "output")  # fmt: skip
    scores = np.load(tmp_path / "picture.npy")
    import kcompiler
    from kcompiler.commands.request import parse_fill
    from kcompiler.runtime.inputs.images import covering

    explainer = kcompiler.load(folder / "model.kc", providers=["cpu"])
    image = explainer.check_image(explainer.read_image(folder / "picture.png").tensor)
    covered_by = covering(parse_fill(explainer, folder / "model.kc", fill), image, element=explainer.manifest.image_element)
    rows, columns = range(0, HEIGHT - PATCH + 1, 7), range(0, WIDTH - PATCH + 1, 7)
    covered = cover_by_hand(image[0], [(y, x) for y in rows for x in columns], covered_by, (PATCH, PATCH)).transpose(0, 2, 3, 1)
    assert (covered == covered.astype(np.uint8)).all(), "whole numbers"
    expected = run_file(folder / "model.onnx", covered.astype(np.uint8))[:, 2].reshape(len(rows), len(columns))
    assert np.ptp(expected) > 1e-3, "the patch is to move the output"
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_a_recipe_that_makes_other_numbers_is_refused(folder, tmp_path):
    """Rounded, they would all be the same."""
    (tmp_path / "recipe.json").write_text(json.dumps({**RECIPE, "scale": 1 / 255}))
    out = ["-o", tmp_path / "x.kc"]
    result = run("compile", folder / "model.onnx", "--preprocessing", tmp_path / "recipe.json", "--patch", PATCH, *out, code=2)
    assert "preprocessing makes 0.003922 of the pixel 1 (channel 0)" in result.stderr
    assert "takes uint8, expected whole numbers from 0 to 255" in result.stderr


def test_check_bench_and_tune_draw_whole_numbers(folder, tmp_path):
    run("check", folder / "model.kc", "--positions", 8)
    run("bench", folder / "model.kc", "--rounds", 1, "--positions", 4, "--no-memory")
    np.save(tmp_path / "array.npy", np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, CHANNELS)).astype(np.uint8))
    run("explain", folder / "model.kc", tmp_path / "array.npy", "-o", tmp_path / "out")
    np.save(tmp_path / "halves.npy", np.full((HEIGHT, WIDTH, CHANNELS), 0.5, np.float32))
    result = CliRunner().invoke(
        app, ["explain", str(folder / "model.kc"), str(tmp_path / "halves.npy"), "-o", str(tmp_path / "x")]
    )
    assert "expected whole numbers from 0 to 255; found 0.5" in result.stderr
