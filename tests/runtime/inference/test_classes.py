"""Classes of extents: every position is in one that covers it, and batches have few shapes."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.passes.choosing.classes import extent_classes
from kcompiler.runtime.inference.classes import LEAST, Classes, filled_up
from kcompiler.runtime.inference.schedule import Extents

IMAGE, PATCH, COUNT = (64, 80), (8, 6), 6


def extents() -> Extents:
    """Of the patch itself, of a region that depends on the alignment to a stride of 4, and of one cut off at the borders."""

    def profile(size: int, patch: int) -> list[list[int]]:
        origins = np.arange(1 - patch, size)
        start, stop = np.maximum(origins, 0), np.minimum(origins + patch, size)
        strided = (stop - 1) // 4 - start // 4 + 1
        wide = np.minimum(stop + 6, size) - np.maximum(start - 6, 0)
        return [(stop - start).tolist(), strided.tolist(), wide.tolist()]

    return Extents.of(
        list(zip((0.0, 5.0, 1.0), *(profile(*sides) for sides in zip(IMAGE, PATCH, strict=True)), strict=True)), PATCH
    )


@pytest.fixture
def classes() -> Classes:
    return Classes(extent_classes(extents(), IMAGE, PATCH, COUNT), extents())


def everywhere() -> np.ndarray:
    """All positions, those of patches beyond the borders, too."""
    return np.stack(np.meshgrid(*(np.arange(1 - p, s) for s, p in zip(IMAGE, PATCH, strict=True)), indexing="ij"), -1).reshape(
        -1, 2
    )


def test_every_position_has_the_extents_that_it_needs(classes):
    assert 2 <= len(classes.classes) <= COUNT + 1
    given, needed = extents(), everywhere() - np.array(extents().first)
    number = classes.cheapest(classes.covering(everywhere()))
    for axis, (profile, places) in enumerate(((given.y, "rows"), (given.x, "columns"))):
        at = [np.array(getattr(one, places)) - given.first[axis] for one in classes.classes]
        largest = np.stack([profile[numbers].max(axis=0) for numbers in at])
        assert (profile[needed[:, axis]] <= largest[number]).all()
    assert len(np.unique(number)) > 1
    assert classes.covering(everywhere())[:, -1].all()


def test_classes_keep_more_than_one_shape_for_all_would(classes):
    given, inside = extents(), everywhere()[::7]
    inside = inside[((inside >= 0) & (inside <= np.array(IMAGE) - PATCH)).all(axis=1)]
    own = np.mean([given.work(number[None]) for number in inside - np.array(given.first)])
    chosen = classes.work[classes.cheapest(classes.covering(inside))].mean()
    assert own < chosen < 0.99 * classes.work[-1]


@pytest.mark.parametrize("size", [5, 64, 100, 4096])
@pytest.mark.parametrize("count", [1, 3, LEAST - 1, LEAST + 1, 500, 3000])
def test_batches_hold_each_position_once(classes, size, count):
    positions = np.random.default_rng(count).permutation(everywhere())[:count]
    parts = classes.batches(positions, size)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert max(map(len, parts)) <= size
    covering = classes.covering(positions)
    assert all(covering[part][:, classes.of_batch(positions[part])].all() for part in parts)


def test_few_positions_are_one_batch(classes):
    positions = everywhere()[:: len(everywhere()) // (LEAST - 1) + 1]
    assert len(classes.batches(positions, 256)) == 1
    assert classes.of_batch(positions) == len(classes.classes) - 1
    assert classes.of_batch(positions[:1]) == len(classes.classes) - 1, "whatever its own extents"


def test_batches_of_a_whole_map_are_hardly_more_than_there_are_classes(classes):
    positions = everywhere()
    parts = classes.batches(positions, 512)
    assert len(parts) <= len(positions) / 512 + len(classes.classes)
    assert min(map(len, parts)) >= LEAST


def test_batches_are_filled_up_by_an_eighth_at_most():
    sizes = {count: filled_up(count) for count in range(1, 3000)}
    assert all(count <= size <= count * 9 / 8 for count, size in sizes.items())
    assert {sizes[count] for count in range(1, 17)} == set(range(1, 17))
    assert len({size for size in sizes.values() if 1024 < size <= 2048}) == 8
    assert all(filled_up(size) == size for size in sizes.values())
