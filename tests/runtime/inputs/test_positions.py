"""Grids and position lists."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.positions import EDGES, batches, check_positions, make_grid


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [(9, 12), (16, 16)])
def test_grid_holds_every_valid_position(size, stride):
    grid = make_grid(size, (4, 5), stride)
    expected = [
        (y, x) for y in range(0, size[0], stride) for x in range(0, size[1], stride) if y + 4 <= size[0] and x + 5 <= size[1]
    ]
    assert [tuple(p) for p in grid.positions] == expected
    assert grid.shape == ((size[0] - 4) // stride + 1, (size[1] - 5) // stride + 1)


def test_region_keeps_patches_inside():
    grid = make_grid((30, 30), (4, 4), 2, (3, 5, 11, 20))
    assert grid.ys.tolist() == [3, 5, 7]
    assert grid.xs.tolist() == [5, 7, 9, 11, 13, 15]


@pytest.mark.parametrize(
    ("stride", "region", "message"),
    [
        (0, None, "stride is 0"),
        (-3, None, "stride is -3"),
        (1, (0, 0, 31, 30), "inside the image"),
        (1, (5, 5, 5, 9), "inside the image"),
        (1, (0, 0, 3, 30), "smaller than the patch"),
    ],
)
def test_bad_grids_are_refused(stride, region, message):
    with pytest.raises(UsageError, match=message):
        make_grid((30, 30), (4, 4), stride, region)


def test_positions_outside_are_named():
    with pytest.raises(UsageError, match=r"position 1 is \[30, 0\].*\[-3, -3\] and \[29, 29\]"):
        check_positions([[29, -3], [30, 0]], (30, 30), (4, 4))
    with pytest.raises(UsageError, match=r"\[-4, 3\]"):
        check_positions([[-4, 3]], (30, 30), (4, 4))


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ("valid", ([0, 5], [0, 3, 6])),
        ("inward", ([0, 5, 6], [0, 3, 6])),
        ("cut", ([0, 5], [0, 3, 6])),  # at 10 the patch would lie beyond the edge
        ("centred", ([-2, 3], [-2, 1, 4, 7])),
    ],
)
def test_edges(edges, expected):
    grid = make_grid((10, 10), (4, 4), (5, 3), edges=edges)
    assert (grid.ys.tolist(), grid.xs.tolist()) == expected


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("side", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 13))
def test_all_positions_of_a_grid_cover_something(edges, side, stride):
    for size in range(side, 13):
        grid = make_grid((size, 20), (side, 4), stride, edges=edges)
        assert check_positions(grid.positions, (size, 20), (side, 4)).shape == grid.positions.shape
        covered = {pixel for y in grid.ys.tolist() for pixel in range(y, y + side)}
        gaps = any(pixel not in covered for pixel in range(size))
        if stride <= side and edges in ("inward", "cut"):
            assert not gaps


def test_patches_larger_than_the_region_may_be_cut_off():
    assert make_grid((10, 10), (4, 4), 1, (2, 2, 4, 4), "cut").positions.tolist() == [[2, 2]]
    with pytest.raises(UsageError, match="edges is 'soft'"):
        make_grid((10, 10), (4, 4), 1, edges="soft")


@pytest.mark.parametrize("positions", [[[0.5, 1.0]], [1, 2, 3], [[1, 2, 3]], [["a", "b"]]])
def test_positions_of_another_kind_are_refused(positions):
    with pytest.raises(UsageError, match=r"expected whole numbers \[N, 2\]"):
        check_positions(positions, (30, 30), (4, 4))


def test_no_positions_are_fine():
    assert check_positions([], (30, 30), (4, 4)).shape == (0, 2)


@pytest.mark.parametrize(("count", "size"), [(0, 4), (1, 4), (4, 4), (5, 4), (17, 5)])
def test_batches_cover_everything_once(count, size):
    parts = list(batches(count, size))
    assert np.concatenate([np.arange(count)[part] for part in parts] or [[]]).tolist() == list(range(count))
    assert all(1 <= part.stop - part.start <= size for part in parts)
