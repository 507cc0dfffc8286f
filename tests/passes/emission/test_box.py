"""Boxes of a batch's regions: as large as the largest, counted in cells and in tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from emitting import Batch, window

from kcompiler.passes.emission.box import Axis, first_of, region_axis
from kcompiler.passes.regions.geometry import Spans

SIZE, PATCH = (6, 7), (2, 3)
STRIDED = window(6, kernel=3, stride=2, pads=(1, 1)), window(7, kernel=3, stride=2, pads=(1, 1))
BELOW_STRIDE = window(6, stride=3), window(7, stride=3)
"""Between whose windows patches fall."""


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("chain", [(), (STRIDED,), (BELOW_STRIDE,)], ids=["image", "strided", "below stride"])
def test_extents_are_those_of_the_largest_region(chain, extents):
    """In cells, in tiles that cover them, and as many times as asked for, and more."""
    batch = Batch(SIZE, PATCH, extents)
    box = batch.box(*chain)
    asked = {}
    for name, axis in (("y", box.y), ("x", box.x)):
        asked[name] = axis.extent(batch.emit)
        asked[f"{name} in tiles"] = axis.extent(batch.emit, tile=2)
        asked[f"{name} more"] = axis.extent(batch.emit, factor=3, offset=-1)
    computed = batch.finished(asked)
    for positions in batch.batches:
        found, (_, largest) = computed(positions), batch.by_definition(positions, *chain)
        for name, cells in zip("yx", largest, strict=True):
            assert found[name].tolist() == [cells]
            assert found[f"{name} in tiles"].tolist() == [len(range(0, cells, 2))]
            assert found[f"{name} more"].tolist() == [3 * cells - 1]


@pytest.mark.parametrize(("size", "tile", "expected"), [(6, 1, 6), (6, 4, 2), (7, 3, 3), (9, 3, 3), (1, 5, 1)])
def test_extents_of_whole_maps_are_constants(size, tile, expected):
    batch = Batch(SIZE, PATCH, "tight")
    found = Axis(batch.places[0], 0, None, size).extent(batch.emit, factor=2, offset=5, tile=tile)
    assert found.values.tolist() == [2 * expected + 5]
    assert not batch.emit.graph.nodes


def test_a_region_of_nothing_is_one_cell_in_the_map():
    """Of a patch that falls between windows, or behind the last one."""
    batch = Batch(SIZE, PATCH, "tight")
    asked = {}
    for along, (size, patch) in enumerate(zip(SIZE, PATCH, strict=True)):
        places = Spans.of_patch(size, patch)
        nothing = np.arange(len(places.start)) % (size + 1)  # the last of these is behind the map
        axis = region_axis(batch.places[along], along, replace(places, start=nothing, stop=nothing))
        assert (axis.along, axis.size) == (along, size)
        asked[f"{along} extent"] = axis.extent(batch.emit)
        asked[f"{along} origin"] = batch.places[along].origins(axis.number, 1)
    computed = batch.finished(asked)
    for positions in batch.batches:
        found = computed(positions)
        for along, (size, patch) in enumerate(zip(SIZE, PATCH, strict=True)):
            assert found[f"{along} extent"].tolist() == [1]
            expected = (positions[:, along] + patch - 1) % (size + 1)
            np.testing.assert_array_equal(found[f"{along} origin"].ravel(), np.minimum(expected, size - 1))


def test_alike_regions_are_known_by_one_number():
    batch = Batch(SIZE, PATCH, "tight")
    same, other = batch.box(STRIDED), batch.box(BELOW_STRIDE)
    assert batch.box(STRIDED) == same
    assert same.y.number != other.y.number
    assert same.y != same.x


@pytest.mark.parametrize("shape", [[-1], [-1, 1], [-1, 2], [-1, 1, 2, 1]], ids=str)
def test_the_first_of_some_numbers(shape):
    batch = Batch(SIZE, PATCH, "tight")
    numbers = np.arange(12) ** 2
    count = batch.emit.input("count", np.int32, [1])
    computed = batch.finished({"first": first_of(batch.emit, numbers, count, shape)})
    for some in range(7):
        found = computed(batch.everywhere, count=np.array([some], np.int32))["first"]
        np.testing.assert_array_equal(found, numbers.reshape(shape)[:some])
