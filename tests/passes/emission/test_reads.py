"""Which cells are read, against windows that are moved over the map one by one."""

from __future__ import annotations

import numpy as np
import pytest
from emitting import Batch, window

from kcompiler.passes.emission.reads import MARGIN, Reads, chosen_reads, contiguous_reads, tile_reads, window_reads

SIZE, PATCH = (6, 7), (2, 3)
WINDOWS = {
    "one cell": (window(6), window(7)),
    "three": (window(6, 3, pads=(1, 1)), window(7, 3, pads=(1, 1))),
    "strided": (window(6, 3, 2, pads=(1, 0)), window(7, 2, 3, pads=(0, 1))),
    "dilated": (window(6, 2, 1, 3, pads=(2, 2)), window(7, 3, 1, 2, pads=(2, 3))),
    "below stride": (window(6, 1, 2), window(7, 2, 3)),
    "wide": (window(6, 5, pads=(4, 0)), window(7, 1, pads=(0, 0))),
}
TILE = (2, 3)


def run(windows, extents, make, check):
    """Emits reads of the region behind ``windows``, of the image that the patch covers, and checks them for every batch.

    ``check`` gets the batch's positions, what was found by axis (cells, relative to the value's origin + 1000, number of region *
    7 + 5), origins and extents of the output's regions, and origins of the value's.
    """
    batch = Batch(SIZE, PATCH, extents)
    value, output = batch.box(), batch.box(windows)
    asked = {}
    for name, reads, axis in zip("yx", make(batch.emit, output), (value.y, value.x), strict=True):
        asked[f"{name} cells"] = reads.cells
        asked[f"{name} relative"] = reads.relative(batch.emit, axis, 1000)
        asked[f"{name} region"] = reads.by_region(batch.emit, batch.emit.int32([7]), 5)
    computed = batch.finished(asked)
    for positions in batch.batches:
        found = computed(positions)
        by_axis = [tuple(found[f"{name} {what}"] for what in ("cells", "relative", "region")) for name in "yx"]
        check(positions, by_axis, *batch.by_definition(positions, windows), batch.by_definition(positions)[0])


def along_both(reads_of, windows):
    """Makes the reads along y and along x of a region."""
    return lambda emit, output: [reads_of(emit, one, axis) for one, axis in zip(windows, (output.y, output.x), strict=True)]


def assert_reads(found, expected, pad, origins, shape):
    """Padded cells, cells counted from the ``origins`` of a value's region, and numbers of regions, as :func:`run` asks."""
    cells, relative, region = found
    by_region = (slice(None), *[None] * (expected.ndim - 1))
    np.testing.assert_array_equal(cells, expected.reshape(shape))
    np.testing.assert_array_equal(relative, (expected - pad - origins[by_region] + 1000).reshape(shape))
    np.testing.assert_array_equal(region, (np.arange(len(expected)) * 7 + 5).reshape(-1, *[1] * (len(shape) - 1)))


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("name", WINDOWS)
def test_contiguous_reads_go_from_the_first_cell_to_the_last(name, extents):
    windows = WINDOWS[name]

    def check(positions, found, origins, extent, values):
        for axis, (one, count) in enumerate(zip(windows, extent, strict=True)):
            touched = [o * one.stride + t * one.dilation for o in range(count) for t in range(one.kernel)]
            steps = np.arange(max(touched) + 1)
            expected = origins[:, axis, None] * one.stride + steps  # padded: cell + pad
            shape = (len(positions), len(steps), 1) if axis == 0 else (len(positions), 1, len(steps))
            assert_reads(found[axis], expected, one.pad, values[:, axis], shape)

    run(windows, extents, along_both(contiguous_reads, windows), check)


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("name", WINDOWS)
def test_window_reads_are_the_taps_of_each_window(name, extents):
    windows = WINDOWS[name]

    def check(positions, found, origins, extent, values):
        for axis, one in enumerate(windows):
            expected = np.zeros((len(positions), extent[axis], one.kernel), np.int64)
            for number, o, t in np.ndindex(*expected.shape):
                expected[number, o, t] = (origins[number, axis] + o) * one.stride + t * one.dilation
            shape = [len(positions), 1, 1, 1, 1]
            shape[1 + axis], shape[3 + axis] = expected.shape[1:]
            assert_reads(found[axis], expected, one.pad, values[:, axis], shape)

    run(windows, extents, along_both(window_reads, windows), check)


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("name", WINDOWS)
def test_tile_reads_are_all_cells_of_each_tile(name, extents):
    """And in front of them those of a tile of no region, which lie behind the map."""
    windows = WINDOWS[name]

    def make(emit, output):
        return tile_reads(emit, windows, output, TILE)

    def check(positions, found, origins, extent, values):
        grid = [range(0, cells, size) for cells, size in zip(extent, TILE, strict=True)]
        tiles = [(number, y, x) for number in range(len(positions)) for y in grid[0] for x in grid[1]]
        for axis, (cells, relative, region) in enumerate(found):
            one = windows[axis]
            elements = np.arange((TILE[axis] - 1) * one.stride + one.reach)
            first = np.array([(origins[tile[0], axis] + tile[1 + axis]) * one.stride for tile in tiles])
            shape = (len(elements), 1, 1 + len(tiles)) if axis == 0 else (len(elements), 1 + len(tiles))
            expected = (elements[:, None] + first).reshape(*shape[:-1], len(tiles))
            np.testing.assert_array_equal(cells[..., 1:], expected)
            padded = one.inputs + one.pad
            assert (cells[..., 0] >= padded).all(), "behind the map"
            away = [one.pad + values[tile[0], axis] - 1000 for tile in tiles]
            np.testing.assert_array_equal(relative[..., 1:], expected - np.array(away))
            assert (relative[..., 0] < 1000).all(), "in front of every region"
            np.testing.assert_array_equal(region, [0, *(7 * tile[0] + 5 for tile in tiles)])

    run(windows, extents, make, check)


@pytest.mark.parametrize("extents", ["tight", "static"])
def test_chosen_reads_are_the_cells_given(extents):
    batch = Batch(SIZE, PATCH, extents)
    value, output = batch.box(), batch.box(WINDOWS["three"])
    given = batch.emit.input("given", np.int32, ["batch", "h", 1, "taps", 1])
    reads = chosen_reads(given, SIZE[0], output.y)
    asked = {
        "cells": reads.cells,
        "relative": reads.relative(batch.emit, value.y, 1000),
        "region": reads.by_region(batch.emit, batch.emit.int32([7]), 5),
    }
    computed, rng = batch.finished(asked), np.random.default_rng(0)
    for positions in batch.batches:
        cells = rng.integers(0, SIZE[0] + 1, (len(positions), 4, 1, 2, 1)).astype(np.int32)
        found, origins = computed(positions, given=cells), batch.by_definition(positions)[0][:, 0]
        np.testing.assert_array_equal(found["cells"], cells)
        np.testing.assert_array_equal(found["relative"], cells - origins.reshape(-1, 1, 1, 1, 1) + 1000)
        np.testing.assert_array_equal(found["region"], (np.arange(len(positions)) * 7 + 5).reshape(-1, 1, 1, 1, 1))


def all_reads(batch, windows) -> dict[str, tuple[Reads, Reads]]:
    output = batch.box(windows)
    axes = (output.y, output.x)
    return {
        "contiguous": tuple(contiguous_reads(batch.emit, *one) for one in zip(windows, axes, strict=True)),
        "windows": tuple(window_reads(batch.emit, *one) for one in zip(windows, axes, strict=True)),
        "tiles": tile_reads(batch.emit, windows, output, TILE),
    }


@pytest.mark.parametrize("name", WINDOWS)
def test_what_is_looked_up_for_the_cells_read(name):
    """By their places in the map with its padding; what lies behind that has a value of its own."""
    windows = WINDOWS[name]
    batch = Batch(SIZE, PATCH, "tight")
    asked, tables = {}, []
    for axis, one in enumerate(windows):
        tables.append(np.arange(one.pad + one.inputs, dtype=np.float32) * 10 + axis)
    for kind, reads in all_reads(batch, windows).items():
        for axis, one in enumerate(reads):
            asked[f"{kind} {axis}"] = one.lookup(batch.emit, tables[axis], -1.0)
            asked[f"{kind} {axis} cells"] = batch.emit("Cast", one.cells, to=1)
    computed = batch.finished(asked, np.float32)
    for positions in batch.batches:
        found = computed(positions)
        for kind in ("contiguous", "windows", "tiles"):
            for axis, table in enumerate(tables):
                cells = found[f"{kind} {axis} cells"].astype(int)
                expected = [table[cell] if cell < len(table) else -1.0 for cell in cells.ravel()]
                np.testing.assert_array_equal(found[f"{kind} {axis}"].ravel(), expected)


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("name", WINDOWS)
def test_margins_take_in_all_that_is_read_before_and_behind_a_region(name, extents):
    """They are multiples of one number, so that reads by other windows share them; and none leaves the map unsaid."""
    windows = WINDOWS[name]
    batch = Batch(SIZE, PATCH, extents)
    value = batch.box()
    kinds = all_reads(batch, windows)
    asked = {
        f"{kind} {axis} {what}": tensor
        for kind, reads in kinds.items()
        for axis, (one, of) in enumerate(zip(reads, (value.y, value.x), strict=True))
        for what, tensor in (("relative", one.relative(batch.emit, of, 0)), ("cells", one.cells))
    }
    computed, leaves = batch.finished(asked), dict.fromkeys(kinds, False)
    for positions in batch.batches:
        found, extent = computed(positions), batch.by_definition(positions)[1]
        for kind, reads in kinds.items():
            for axis, one in enumerate(reads):
                before, behind = one.margins((value.y, value.x)[axis])
                assert before % MARGIN == behind % MARGIN == 0
                relative, cells = found[f"{kind} {axis} relative"], found[f"{kind} {axis} cells"] - one.window.pad
                assert relative.min() >= -before
                assert relative.max() < extent[axis] + behind
                if (cells < 0).any() or (cells >= one.window.inputs).any():
                    assert one.pads
                    leaves[kind] = True
    assert leaves["tiles"], "if only for the tile of no region"
