"""Maps drawn over pictures, read back cell by cell: the colour tells the sign, the opacity the size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from painted import read_back

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.figure import render
from kcompiler.runtime.maps.overlay import DIMMED, LARGEST, Layer, drawn_size
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.maps.wording import Words

STRONGEST = 0.75
"""Opacity of what moves most: the picture is to be seen behind."""
SIZE = (3, 4)


def layer(drop, view=None, **others):
    """A map with a position for each of the model's pixels."""
    drop = np.asarray(drop, np.float32)
    given = {"crossed": np.zeros(drop.shape, np.bool_), "patch": (1, 1), **others}
    return Layer(drop, *map(np.arange, drop.shape), view=view or View.whole(drop.shape), **given)


def drawn(picture, drop, title="a title", style=None, **others):
    return render(picture, layer(drop, **others), Words(title, "", "", "drop"), style or Style())


def painted(drop, style=None, size=None, **others):
    drop = np.asarray(drop, np.float32)
    return read_back(lambda picture: drawn(picture, drop, style=style, **others), size or drop.shape)


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
    drawings = [np.asarray(drawn(picture, drop)) for picture in (coloured, grey, np.repeat(grey[..., None], 3, axis=-1))]
    for one in drawings[1:]:
        np.testing.assert_array_equal(one, drawings[0])


def test_the_title_is_drawn_as_it_is():
    drop, picture = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.uint8)
    drawings = [np.asarray(drawn(picture, drop, title)) for title in ("dog", "cat", "$cat$")]
    assert all(one.shape != other.shape or (one != other).any() for one, other in pairwise(drawings))


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        ((224, 224), (672, 672)),
        ((480, 90), (480, 90)),
        ((3000, 2000), (3000, 2000)),
        ((1, 1), (480, 480)),
        ((8192, 3), (LARGEST, 2)),
    ],
)
def test_pictures_are_drawn_at_their_size_within_limits(picture, shown):
    assert drawn_size(*picture) == shown


def test_each_pixel_of_the_picture_is_a_pixel_of_the_drawing():
    picture = np.random.default_rng(0).integers(0, 256, (500, 520)).astype(np.uint8)
    drawing = np.asarray(drawn(picture, np.zeros((2, 2)), view=View((500, 520), (2, 2), (250.0, 260.0), (0.0, 0.0))))
    windows = np.lib.stride_tricks.sliding_window_view(drawing[..., 0], (1, 520))[:, :, 0]
    (row, column), *others = np.argwhere((windows == picture[0]).all(axis=-1)).tolist()
    assert not others
    np.testing.assert_array_equal(drawing[row : row + 500, column : column + 520], np.repeat(picture[..., None], 3, axis=-1))


def test_the_range_fixes_the_scale():
    """Half of the strongest, and what is beyond the ends as they are."""
    found = painted([[1.0, -1.0, 9.0, -9.0]], Style(range=(-2, 4)))
    np.testing.assert_allclose(found.opacity, [[STRONGEST / 4, STRONGEST / 4, STRONGEST, STRONGEST / 2]], atol=0.02)


def test_colours_and_opacity_are_those_asked_for():
    drop = np.array([[-1.0, 0.0, 0.5, 1.0]])
    found = painted(drop, Style(colours="PRGn", opacity=0.5))
    np.testing.assert_allclose(found.opacity, np.abs(drop) * 0.5, atol=0.02)
    assert found.colour[0, 3, 1] > found.colour[0, 3, 0], "green is the upper end"


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_one_position_without_a_number_does_not_blank_the_map(bad):
    drop = np.array([[1.0, bad, -0.5, 0.0]], np.float32)
    found = painted(drop)
    np.testing.assert_allclose(found.opacity[0, [0, 2, 3]], np.array([1, 0.5, 0]) * STRONGEST, atol=0.02)
    cross = np.asarray(drawn(np.zeros((1, 4), np.uint8), drop, crossed=~np.isfinite(drop))).astype(int)
    assert ((cross[..., 0] > 200) & (cross[..., 2] < 60)).sum() > 20, "yellow"


def test_what_rounding_alone_may_make_has_no_colour():
    drop = np.array([[1e-6, -1e-6, 0.0, 5e-7]])
    assert np.abs(painted(drop, rounding=2e-6).opacity).max() < 0.02
    assert np.abs(painted(drop, rounding=1.9e-6).opacity).max() > 0.7


def test_what_the_model_does_not_see_is_dimmed_and_not_coloured():
    """A square cut out of the middle of a wide picture."""
    view = View((4, 8), (4, 4), (1.0, 1.0), (0.0, 2.0))
    found = painted(np.ones((4, 4)), size=(4, 8), view=view)
    np.testing.assert_allclose(found.opacity[:, 2:6], STRONGEST, atol=0.02)
    assert (np.abs(found.opacity[:, [0, 1, 6, 7]] - (1 - DIMMED)) < 0.1).all()


def test_the_map_lies_where_its_pixels_lie_in_the_picture():
    """A picture twice as high and three times as wide as the model's image: each of its pixels is six."""
    view = View((6, 12), (3, 4), (2.0, 3.0), (0.0, 0.0))
    found = painted(with_one(1.0, 0.0), size=(6, 12), view=view)
    strongest = np.argwhere(found.opacity > 0.6 * STRONGEST)
    assert {tuple(place) for place in strongest.tolist()} <= {(y, x) for y in (2, 3) for x in (6, 7, 8)}
    assert [2, 7] in strongest.tolist()


def test_a_dashed_line_is_where_patches_end():
    """Nothing else tells no effect from not covered."""
    drop = np.zeros((8, 8), np.float32)
    drop[:, 4:] = np.nan
    whole, half = (np.asarray(drawn(np.full((8, 8), 128, np.uint8), each)).astype(int) for each in (np.zeros((8, 8)), drop))
    columns = np.flatnonzero((np.abs(whole[: len(half)] - half[: len(whole)]).sum(axis=-1) > 200)[50:500].mean(axis=0) > 0.5)
    middle = 12 + 4 * 60  # the margin, and half of the picture
    assert columns.min() > middle - 4
    assert columns.max() < middle + 4


def test_the_outline_is_around_the_largest_drops():
    drop = np.zeros((8, 8), np.float32)
    drop[2:5, 3:6] = 1
    plain, outlined = (
        np.asarray(drawn(np.full((8, 8), 200, np.uint8), drop, style=Style(outline=outline))).astype(int)
        for outline in (None, 0.1)
    )
    rows, columns = np.nonzero(np.abs(plain - outlined).sum(axis=-1) > 60)
    assert 0.2 * plain.shape[0] < rows.min() < rows.max() < 0.75 * plain.shape[0]
    assert 0.2 * plain.shape[1] < columns.min() < columns.max() < 0.75 * plain.shape[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"range": (1, 2)}, "LOW <= 0 <= HIGH"),
        ({"range": (0, 0)}, "LOW <= 0 <= HIGH"),
        ({"range": (-1, np.nan)}, "LOW <= 0 <= HIGH"),
        ({"colours": "jet"}, "expected one of RdBu"),
        ({"opacity": 0}, "opacity is 0"),
        ({"opacity": 1.5}, "opacity is 1.5"),
        ({"outline": 1}, "outline is 1"),
    ],
)
def test_styles_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Style(**wrong)


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
        drawn(picture, np.zeros(SIZE, np.float32))
