"""The demo's pictures are reproducible, and a lesion changes nothing outside its box."""

import numpy as np
import pytest
from lesions import assert_changes_its_box_only

from models.demo_pictures import LABELS, SIDE, _eye, picture

LESIONS = [label for label, name in enumerate(LABELS) if name != "healthy"]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("seed", range(3))
def test_same_seed_same_picture(split, seed):
    one, same, other = picture(seed, split), picture(seed, split), picture(seed + 3, split)
    assert np.array_equal(one.pixels, same.pixels)
    assert (one.label, one.box) == (same.label, same.box)
    assert one.label == other.label
    assert not np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("label", LESIONS)
@pytest.mark.parametrize("seed", range(12))
def test_lesion_changes_its_box_only_and_reaches_all_its_sides(seed, label):
    healthy, ill = picture(seed, "test", label=0), picture(seed, "test", label=label)
    assert healthy.box is None
    assert_changes_its_box_only(healthy.pixels, ill.pixels, ill.box, (8, 42))


@pytest.mark.parametrize("seed", range(6))
def test_haemorrhage_darkens_and_exudate_brightens(seed):
    healthy, dark, bright = (picture(seed, "train", label=label).pixels.astype(int) for label in range(3))
    assert (dark - healthy).min() < -30 < (dark - healthy).max() < 15
    assert (bright - healthy).max() > 30


def test_a_picture_is_bytes_of_the_models_size():
    pixels = picture(0, "train").pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (SIDE, SIDE, 3)


def test_training_and_test_pictures_come_from_different_halves_of_the_photograph():
    from skimage import data
    from skimage.transform import downscale_local_mean

    photograph = downscale_local_mean(data.retina()[:1410, :1410] / 255.0, (2, 2, 1))
    train, test = _eye("train"), _eye("test")
    assert np.array_equal(train[:353], photograph[:353])
    assert np.array_equal(train[352:], train[352::-1])
    assert np.array_equal(test[:352], photograph[:352:-1])
    assert np.array_equal(test[351:], test[351::-1])
