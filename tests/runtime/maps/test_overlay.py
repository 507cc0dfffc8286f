"""Maps drawn over pictures, read back cell by cell: the colour tells the sign, the opacity the size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from painted import read_back

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.maps.overlay import render

STRONGEST = 0.75
"""Opacity of what moves most: the picture is to be seen behind."""
SIZE = (3, 4)


def painted(drop):
    drop = np.asarray(drop, np.float32)
    return read_back(lambda picture: render(picture, drop, "a title", "drop"), drop.shape)


def with_one(value, others, place=(1, 2)):
    drop = np.full(SIZE, others, np.float32)
    drop[place] = value
    return drop


@pytest.mark.parametrize("place", [(0, 0), (0, 3), (2, 0), (2, 3), (1, 2)])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_cell_is_painted_where_it_lies(place, sign):
    """Red where covering lowers the target, blue where it raises it."""
    found = painted(with_one(sign * 0.02, 0.0, place))
    np.testing.assert_allclose(found.opacity, with_one(STRONGEST, 0.0, place), atol=0.02)
    assert sign * found.red[place] > 60


def test_the_scale_is_symmetric():
    """What lowers and what raises equally are equally strong, whichever of the two has the strongest cell."""
    drop = np.array([[-4.0, -2.0, 0.0, 2.0]])
    lowering, raising = painted(-drop), painted(drop)
    for found in (lowering, raising):
        np.testing.assert_allclose(found.opacity, STRONGEST * np.abs(drop) / 4, atol=0.02)
    np.testing.assert_allclose(lowering.colour[0, 1], raising.colour[0, 3], atol=5)
    np.testing.assert_allclose(lowering.colour[0, 3], raising.colour[0, 1], atol=5)
    assert raising.red[0, 3] > 60
    assert raising.red[0, 1] < -60


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units_of_the_target_make_no_difference(scale):
    drop = np.array([[-1.0, 0.25], [0.5, 0.75]])
    found = painted(scale * drop)
    np.testing.assert_allclose(found.opacity, STRONGEST * np.abs(drop), atol=0.02)
    np.testing.assert_array_equal(np.sign(found.red), np.sign(drop))


def test_the_stronger_the_darker_is_the_colour():
    found = painted(np.linspace(0.25, 1.0, 4)[None])
    assert (np.diff(found.colour.sum(axis=-1)[0]) < 0).all()


@pytest.mark.parametrize("others", [0.0, np.nan])
def test_where_nothing_is_known_or_nothing_moves_the_picture_stays(others):
    found = painted(with_one(1.0, others))
    np.testing.assert_allclose(found.opacity, with_one(STRONGEST, 0.0), atol=0.02)
    assert found.red[1, 2] > 60


@pytest.mark.parametrize("everywhere", [0.0, np.nan])
def test_a_map_of_nothing_is_the_picture(everywhere):
    assert np.abs(painted(np.full(SIZE, everywhere)).opacity).max() < 0.02


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (4, 3), (2, 9)])
def test_cells_are_squares(size):
    """Each pixel of the picture is one, however many there are along a side."""
    height, width = painted(np.zeros(size)).sides
    assert height / size[0] == pytest.approx(width / size[1], abs=2 / min(size))


def test_pictures_may_be_grey_or_coloured():
    """Colours are shown as grey, so that those of the map are told from them."""
    drop, rng = np.zeros(SIZE, np.float32), np.random.default_rng(0)
    coloured = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    grey = np.rint(coloured @ [0.299, 0.587, 0.114]).astype(np.uint8)
    drawings = [
        np.asarray(render(picture, drop, "", "drop")) for picture in (coloured, grey, np.repeat(grey[..., None], 3, axis=-1))
    ]
    for one in drawings[1:]:
        np.testing.assert_array_equal(one, drawings[0])


def test_what_is_drawn_is_rgb_and_as_large_whatever_the_map():
    sizes = {
        render(np.zeros(size, np.uint8), np.zeros(size, np.float32), "a", "drop").size for size in ((1, 1), (5, 90), (90, 5))
    }
    assert sizes == {(768, 600)}
    assert render(np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.float32), "a", "drop").mode == "RGB"


def test_the_title_is_drawn_as_it_is():
    drop, picture = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.uint8)
    drawings = [np.asarray(render(picture, drop, title, "drop")) for title in ("", "cat", "$cat$")]
    assert all((one != other).any() for one, other in pairwise(drawings))


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 3), np.uint8),
        np.zeros((*SIZE, 1), np.uint8),
        np.zeros((*SIZE, 4), np.uint8),
        np.zeros((1, *SIZE), np.uint8),
        np.zeros(SIZE, np.float32),
    ],
    ids=lambda one: f"{one.dtype} {one.shape}",
)
def test_pictures_of_another_size_or_type_are_refused(picture):
    with pytest.raises(UsageError, match=r"expected uint8 of the map's size \[3, 4\], gray or RGB"):
        render(picture, np.zeros(SIZE, np.float32), "a", "drop")
