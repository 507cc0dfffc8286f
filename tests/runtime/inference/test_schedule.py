"""The scheduler: every position once, in batches of alike extents, always the same."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.inference.schedule import Extents, schedule
from kcompiler.runtime.inputs.positions import make_grid

IMAGE, PATCH = 64, 8
ORIGINS = IMAGE - PATCH + 1


def extents() -> Extents:
    """As of a chain of strided convolutions: extents depend on the borders and on the alignment to the strides."""
    geometries = []
    for stride, reach in ((1, 9), (2, 9), (4, 17), (8, 25)):
        first = -((reach - 1 - np.arange(ORIGINS)) // stride)
        last = (np.arange(ORIGINS) + PATCH - 1) // stride
        lengths = np.minimum(last, IMAGE // stride - 1) - np.maximum(first, 0) + 1
        geometries.append((float(stride**2), tuple(np.maximum(lengths, 1)), tuple(np.maximum(lengths, 1))))
    return Extents.of(geometries, (1, 1))


def total_work(positions, batches) -> float:
    return sum(len(part) * extents().work(positions[part]) for part in batches)


@pytest.mark.parametrize("batch", [1, 7, 16, 64, 10_000])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 225])
def test_every_position_is_in_one_batch(count, batch):
    positions = np.random.default_rng(0).permutation(make_grid((IMAGE, IMAGE), (PATCH, PATCH), 4).positions)[:count]
    parts = schedule(positions, extents(), batch)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert max(map(len, parts)) <= batch
    assert len(parts) == -(-count // batch)


def test_no_positions_make_no_batches():
    assert schedule(np.zeros((0, 2), np.int64), extents(), 16) == []


def test_repeated_positions_are_all_kept():
    positions = np.array([[3, 5]] * 40 + [[0, 0]] * 3)
    assert sorted(np.concatenate(schedule(positions, extents(), 16)).tolist()) == list(range(43))


def test_batches_are_the_same_each_time():
    positions = make_grid((IMAGE, IMAGE), (PATCH, PATCH), 3).positions
    once, again = (schedule(positions, extents(), 16) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("batch", [8, 16, 32])
@pytest.mark.parametrize("stride", [1, 3, 4])
def test_less_work_than_in_the_order_of_rows(stride, batch):
    positions = make_grid((IMAGE, IMAGE), (PATCH, PATCH), stride).positions
    rows = np.array_split(np.arange(len(positions)), -(-len(positions) // batch))
    assert total_work(positions, schedule(positions, extents(), batch)) <= 0.99 * total_work(positions, rows)
