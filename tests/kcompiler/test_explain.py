"""``kcompiler explain`` on pictures of their own size: coordinates, the scale of colours, targets of dense outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

import kcompiler
from kcompiler.cli import app
from kcompiler.commands.request import parse_range, region_of
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.heatmap import HeatMap

SIZE = (24, 28)


def explain(*arguments, code=0):
    """Runs the command in this process; returns what it prints, errors included."""
    done = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def dense():
    """A model whose output is [1, 3, 6, 7]."""
    builder = Builder()
    output = builder.conv("image", 3, strides=[4, 4], pads=[1, 1, 1, 1])
    values = (("image", [1, CHANNELS, *SIZE]), (output, [1, 3, 6, 7]))
    image, score = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values)
    graph = helper.make_graph(builder.nodes, "dense", [image], [score], builder.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    """Wider than the model's image: 5 pixels of the picture are one of the model's, and the sides are not seen."""
    path = tmp_path_factory.mktemp("pictures") / "wide.png"
    pixels = np.random.default_rng(0).integers(0, 256, (140, 280, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_record_has_both_coordinates(bundle, picture, tmp_path):
    explain(bundle, picture, "-o", tmp_path / "maps", "--stride", "2", "--region", "30,90,110,170")
    record = json.loads((tmp_path / "maps" / "wide.json").read_text())
    assert record["view"] == {"picture": [140, 280], "model": [24, 28], "scale": [5.0, 5.0], "offset": [10.0, 70.0]}
    assert record["region"] == {"picture": [30, 90, 110, 170], "model": [4, 4, 20, 20]}
    assert (record["ys"][0], record["xs"][0], record["ys"][-1], record["xs"][-1]) == (4, 4, 14, 14)
    explainer = kcompiler.load(bundle)
    expected = explainer.explain(explainer.read_image(picture).tensor, stride=2, region=(4, 4, 20, 20))
    np.testing.assert_allclose(HeatMap.load(tmp_path / "maps" / "wide.json").scores, expected.scores, rtol=1e-4, atol=1e-5)


def test_the_overlay_is_of_the_whole_picture_at_its_own_size(bundle, picture, tmp_path):
    explain(bundle, picture, "-o", tmp_path / "maps", "--stride", "8")
    with Image.open(tmp_path / "maps" / "wide.png") as drawing:
        assert drawing.width >= 2 * 280
        assert drawing.height >= 2 * 140


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("0,0,141,280", "inside the image of 140 x 280 pixels"),
        ("50,90,50,170", "inside the image of 140 x 280 pixels"),
        ("0,0,140,60", "the model sees [10, 70, 130, 210] of the picture"),
        ("30,90,40,170", "smaller than the patch"),
    ],
)
def test_regions_that_cannot_be_are_refused(bundle, picture, tmp_path, region, message):
    assert message in explain(bundle, picture, "-o", tmp_path / "maps", "--region", region, code=2)
    assert not (tmp_path / "maps").exists()


def test_of_a_region_the_seen_part_is_explained():
    view = View((140, 280), SIZE, (5.0, 5.0), (10.0, 70.0))
    assert region_of((0, 0, 140, 280), view) == (0, 0, 24, 28)
    assert region_of((0, 100, 70, 280), view) == (0, 6, 12, 28)
    assert region_of(None, view) is None


def test_one_scale_over_many_pictures(bundle, picture, tmp_path):
    explain(bundle, picture, "-o", tmp_path / "a", "--stride", "8", "--range", "1", "--colours", "PuOr_r", "--outline", "0.1")
    explain(bundle, picture, "-o", tmp_path / "b", "--stride", "8", "--range", "-1,1", "--colours", "PuOr_r", "--outline", "0.1")
    explain(bundle, picture, "-o", tmp_path / "c", "--stride", "8", "--range", "-1,2", "--opacity", "0.5")
    a, b, c = ((tmp_path / name / "wide.png").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--range", "wide"), "expected LOW,HIGH"),
        (("--range", "2,1"), "LOW <= 0 <= HIGH"),
        (("--colours", "jet"), "expected one of RdBu"),
        (("--opacity", "0"), "opacity is 0"),
        (("--outline", "2"), "expected a share"),
    ],
)
def test_styles_are_checked_before_anything_is_evaluated(bundle, picture, tmp_path, arguments, message):
    assert message in explain(bundle, picture, "-o", tmp_path / "maps", *arguments, code=2)


def test_ranges():
    assert (parse_range(None), parse_range("3"), parse_range("-1,2.5")) == (None, (-3.0, 3.0), (-1.0, 2.5))
    with pytest.raises(UsageError, match="expected LOW,HIGH"):
        parse_range("1,2,3")


def test_a_number_of_a_dense_output_is_named_by_its_indices(tmp_path):
    kcompiler.compile(dense(), patch=5).save(tmp_path / "model.kc")
    image = np.random.default_rng(0).standard_normal((3, 24, 28), dtype=np.float32)
    np.save(tmp_path / "image.npy", image)
    arguments = (tmp_path / "model.kc", tmp_path / "image.npy", "-o", tmp_path / "maps", "--stride", "8")
    assert "the output is [3, 6, 7] numbers, not one a class" in explain(*arguments, code=2)
    assert "an index for each axis of [3, 6, 7]" in explain(*arguments, "--target", "1,2", code=2)
    assert "an index for each axis of [3, 6, 7]" in explain(*arguments, "--target", "1,2,7", code=2)
    explain(*arguments, "--target", "1,2,3")
    record = json.loads((tmp_path / "maps" / "image.json").read_text())
    assert (record["target"], record["label"]) == (1 * 42 + 2 * 7 + 3, "1,2,3")
