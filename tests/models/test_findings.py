"""The made pictures are reproducible, and a finding changes nothing outside its box."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage")

from lesions import assert_changes_its_box_only

from models.findings import DATA_SETS, picture
from models.findings.__main__ import main

FINDINGS = [(name, label) for name, data_set in DATA_SETS.items() for label in range(1, len(data_set.labels))]


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("seed", range(4))
def test_same_seed_same_picture(name, seed):
    one, same, other = (picture(name, "train", number) for number in (seed, seed, seed + 12))
    assert np.array_equal(one.pixels, same.pixels)
    assert (one.label, one.box) == (same.label, same.box)
    assert one.label == other.label == seed % len(DATA_SETS[name].labels)
    assert not np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("name", DATA_SETS)
def test_splits_differ(name):
    assert not np.array_equal(picture(name, "train", 0).pixels, picture(name, "test", 0).pixels)


@pytest.mark.parametrize(("name", "label"), FINDINGS)
@pytest.mark.parametrize("seed", range(16))
def test_finding_changes_its_box_only_and_reaches_all_its_sides(name, label, seed):
    healthy, ill = picture(name, "test", seed, label=0), picture(name, "test", seed, label=label)
    assert healthy.box is None
    assert_changes_its_box_only(healthy.pixels, ill.pixels, ill.box, (16, 48))
    top, left, bottom, right = ill.box
    assert abs(ill.pixels.astype(int) - healthy.pixels)[top:bottom, left:right].max() > 50


@pytest.mark.parametrize(("name", "label"), FINDINGS)
@pytest.mark.parametrize("side", [128, 299])
def test_finding_scales_with_the_side(name, label, side):
    for seed in range(4):
        usual, scaled = picture(name, "train", seed, label=label), picture(name, "train", seed, label=label, side=side)
        assert scaled.pixels.shape == (side, side, 3)
        # A pixel of either picture at each end, and what the grain hides of a faint rim.
        assert np.array(scaled.box) == pytest.approx(np.array(usual.box) * side / 224, abs=2 + 2 * side / 224)


@pytest.mark.parametrize("name", DATA_SETS)
def test_pictures_are_grey_bytes(name):
    pixels = picture(name, "train", 1).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (224, 224, 3)
    assert (pixels == pixels[:, :, :1]).all()


def test_command_writes_pictures_and_their_truth(tmp_path):
    main(["bscan", "-o", str(tmp_path), "--count", "5", "--first-seed", "7", "--side", "96"])
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert list(truth) == ["membrane-7.png", "normal-8.png", "fluid-9.png", "drusen-10.png", "membrane-11.png"]
    made = picture("bscan", "test", 9, side=96)
    assert truth["fluid-9.png"] == {"label": "fluid", "box": list(made.box)}
    assert truth["normal-8.png"]["box"] is None
    assert np.array_equal(np.asarray(Image.open(tmp_path / "fluid-9.png")), made.pixels)
