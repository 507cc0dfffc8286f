"""The surface of a map: bilinear between centres as aggregation does it, and nothing where no patch reached."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.aggregate import covering, to_pixels
from kcompiler.runtime.maps.surface import over_picture, reached

IMAGE, PATCH = (20, 24), (5, 6)
YS, XS = np.arange(0, 16, 3), np.arange(2, 19, 4)


def scores(seed=0):
    return np.random.default_rng(seed).standard_normal((len(YS), len(XS))).astype(np.float32)


def test_over_the_models_own_pixels_it_is_the_aggregation_where_patches_reach():
    values = scores()
    surface = over_picture(values, YS, XS, PATCH, View.whole(IMAGE), IMAGE)
    _, weight = covering(values, YS, XS, PATCH, IMAGE)
    np.testing.assert_array_equal(np.isnan(surface), weight == 0)
    np.testing.assert_array_equal(reached(YS, XS, PATCH, IMAGE), weight > 0)
    expected = to_pixels(values, YS, XS, PATCH, IMAGE, "linear")
    np.testing.assert_allclose(surface[weight > 0], expected[weight > 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_position_without_a_number_leaves_its_neighbours_theirs(bad):
    values = scores()
    values[2, 2] = bad
    surface = over_picture(values, YS, XS, PATCH, View.whole(IMAGE), IMAGE)
    total, _ = covering(np.isfinite(values).astype(np.float32), YS, XS, PATCH, IMAGE)
    np.testing.assert_array_equal(np.isnan(surface), total == 0)
    assert np.nanmax(np.abs(surface)) <= np.abs(values[np.isfinite(values)]).max() * (1 + 1e-5)


def test_every_bit_is_of_numpys_own_products_whatever_blas_is_there():
    """A matrix product rounds by how BLAS divides it among threads: overlays then differed by a pixel from process to process."""
    ys, xs, size = np.arange(0, 97, 3), np.arange(0, 113, 4), (500, 620)
    values = np.random.default_rng(0).standard_normal((len(ys), len(xs)), dtype=np.float32)
    surface = over_picture(values, ys, xs, PATCH, View((500, 620), (101, 119), (4.95, 5.2), (0.0, 0.0)), size)
    for y, x in np.random.default_rng(1).integers(0, (450, 570), (500, 2)):
        (top, down), (left, across) = (
            _place((at + 0.5) / scale, corners + side / 2)
            for at, scale, corners, side in ((y, 4.95, ys, PATCH[0]), (x, 5.2, xs, PATCH[1]))
        )
        rows = [(1 - down) * values[top, column] + down * values[top + 1, column] for column in (left, left + 1)]
        assert surface[y, x] == (1 - across) * rows[0] + across * rows[1]


def _place(at, centres):
    """The centre before, and the share of the one after."""
    number = min(max(np.searchsorted(centres, at) - 1, 0), len(centres) - 2)
    return number, np.float32(np.clip((at - centres[number]) / (centres[number + 1] - centres[number]), 0, 1))


def test_gaps_between_patches_stay_clear():
    surface = over_picture(np.ones((2, 2), np.float32), np.array([0, 4]), np.array([0, 4]), (2, 2), View.whole((8, 8)), (8, 8))
    assert np.isnan(surface[:, 2:4]).all()
    assert np.isfinite(surface[4:6, 4:6]).all()


def test_in_a_picture_it_is_where_the_view_says():
    """Cropped, and drawn at half of the picture's size."""
    values, view = scores(), View((80, 120), IMAGE, (4.0, 4.0), (0.0, 12.0))
    surface = over_picture(values, YS, XS, PATCH, view, (40, 60))
    y, x = view.to_picture(YS[3] + PATCH[0] / 2, XS[1] + PATCH[1] / 2)
    assert surface[int(y / 2), int(x / 2)] == pytest.approx(values[3, 1], abs=0.5)
    assert np.isnan(surface[:, :6]).all()
    assert np.isnan(surface[:, 54:]).all()
