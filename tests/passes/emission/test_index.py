"""Rows of the union table that are read, against a table that is written out cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from emitting import Batch, window

from kcompiler.passes.emission import index
from kcompiler.passes.emission.box import Axis, Box
from kcompiler.passes.emission.reads import chosen_reads, contiguous_reads, tile_reads, window_reads

SIZE, PATCH = (5, 7), (2, 3)
HEIGHT, WIDTH = SIZE
TILE = (2, 3)
"""Of outputs that are read for."""
FIRST = window(HEIGHT, 3, pads=(1, 1)), window(WIDTH, 3, pads=(1, 1))
"""Between the image and a value whose region is wider than the patch."""
WINDOWS = {
    "one cell": (window(HEIGHT), window(WIDTH)),
    "three": (window(HEIGHT, 3, pads=(1, 1)), window(WIDTH, 3, pads=(1, 1))),
    "strided": (window(HEIGHT, 3, 2, pads=(1, 0)), window(WIDTH, 2, 3, pads=(0, 1))),
    "dilated": (window(HEIGHT, 2, 1, 3, pads=(2, 2)), window(WIDTH, 3, 1, 2, pads=(2, 3))),
    "below stride": (window(HEIGHT, 1, 2), window(WIDTH, 2, 3)),
    "wide": (window(HEIGHT, 5, pads=(4, 0)), window(WIDTH, 1)),
}
LAYOUTS = {"plain": None, "tiles": (2, 2), "wide tiles": (1, 4), "one tile": (9, 9)}


def layout_of(emit, box, tile):
    return index.plain_rows(emit, box) if tile is None else index.tiled_rows(emit, box, tile)


def updated_rows(count, extent, tile):
    """Of ``count`` regions: the number of the row of each cell, by (region, y, x)."""
    height, width = extent
    if tile is None:
        cells = [(number, y, x) for number in range(count) for y in range(height) for x in range(width)]
        return {cell: row for row, cell in enumerate(cells)}
    rows, row = {}, 0
    for within_y in range(tile[0]):
        for within_x in range(tile[1]):
            row += 1  # what belongs to no region
            for number in range(count):
                for y in range(within_y, within_y + -(-height // tile[0]) * tile[0], tile[0]):
                    for x in range(within_x, within_x + -(-width // tile[1]) * tile[1], tile[1]):
                        rows[number, y, x] = row
                        row += 1
    return {cell: row for cell, row in rows.items() if cell[1] < height and cell[2] < width}


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("tile", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_of_updated_regions(tile, extents):
    batch = Batch(SIZE, PATCH, extents)
    layout = layout_of(batch.emit, batch.box(FIRST), tile)
    assert layout.nothing == (tile is not None)
    computed = batch.finished({"y": layout.y, "x": layout.x, "step": layout.step})
    for positions in batch.batches:
        found, extent = computed(positions), batch.by_definition(positions, FIRST)[1]
        rows = updated_rows(len(positions), extent, tile)
        assert (found["y"].shape, found["x"].shape, found["step"].shape) == ((extent[0],), (extent[1],), (1,))
        for (number, y, x), row in rows.items():
            assert found["y"][y] + found["x"][x] + number * found["step"][0] + layout.nothing == row


class Table:
    """The union table of a batch, cell by cell: of the map, of padding, of the updated regions.

    What lies behind the last window is read by tiles that overhang alone, as padding.
    """

    def __init__(self, count, origins, extent, tile, pad_row, windows=WINDOWS["one cell"]):
        self.origins, self.pad_row = origins, pad_row
        self.updated = updated_rows(count, extent, tile)
        self.stop = [min(one.inputs, (one.outputs - 1) * one.stride - one.pad + one.reach) for one in windows]

    def updated_row(self, number, y, x):
        """Counted from the first updated row; None outside of the region."""
        if number is None:
            return None
        return self.updated.get((number, y - self.origins[number, 0], x - self.origins[number, 1]))

    def cached_row(self, y, x):
        inside = 0 <= y < self.stop[0] and 0 <= x < self.stop[1]
        return y * WIDTH + x if inside else HEIGHT * WIDTH + self.pad_row

    def row(self, number, y, x):
        found = self.updated_row(number, y, x)
        return HEIGHT * WIDTH + index.PAD_ROWS + found if found is not None else self.cached_row(y, x)


READS = ["contiguous", "windows", "tiles"]


def make_reads(kind, emit, windows, output):
    if kind == "tiles":
        return tile_reads(emit, windows, output, TILE)
    make = {"contiguous": contiguous_reads, "windows": window_reads}[kind]
    return [make(emit, one, axis) for one, axis in zip(windows, (output.y, output.x), strict=True)]


def cells_read(kind, windows, origins, extent):
    """(region, y, x) of every read, by its place in the index; region None and cells off the map for the tile of no region."""
    if kind == "tiles":
        elements = [range((size - 1) * one.stride + one.reach) for one, size in zip(windows, TILE, strict=True)]
        tiles = [
            (number, y, x)
            for number in range(len(origins))
            for y in range(0, extent[0], TILE[0])
            for x in range(0, extent[1], TILE[1])
        ]
        for at_y, dy in enumerate(elements[0]):
            for at_x, dx in enumerate(elements[1]):
                yield (at_y, at_x, 0), (None, -1, -1)
                for place, (number, y, x) in enumerate(tiles):
                    first = [(o + e) * one.stride - one.pad for o, e, one in zip(origins[number], (y, x), windows, strict=True)]
                    yield (at_y, at_x, 1 + place), (number, first[0] + dy, first[1] + dx)
        return
    for number, (top, left) in enumerate(origins.tolist()):
        if kind == "windows":
            for y, x, ty, tx in np.ndindex(*extent, windows[0].kernel, windows[1].kernel):
                cell_y = (top + y) * windows[0].stride - windows[0].pad + ty * windows[0].dilation
                cell_x = (left + x) * windows[1].stride - windows[1].pad + tx * windows[1].dilation
                yield (number, y, x, ty, tx), (number, cell_y, cell_x)
        else:
            counts = [(count - 1) * one.stride + one.reach for count, one in zip(extent, windows, strict=True)]
            for y, x in np.ndindex(*counts):
                cell_y, cell_x = (first * one.stride - one.pad for first, one in zip((top, left), windows, strict=True))
                yield (number, y, x), (number, cell_y + y, cell_x + x)


@pytest.mark.parametrize(("extents", "pad_row"), [("tight", index.ZERO_ROW), ("static", index.LOWEST_ROW)])
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("kind", READS)
def test_rows_that_are_read(kind, name, extents, pad_row):
    """At every place of the patch, alone and among others, of regions in each layout."""
    windows = WINDOWS[name]
    batch = Batch(SIZE, PATCH, extents)
    value, output = batch.box(FIRST), batch.box(FIRST, windows)
    y, x = make_reads(kind, batch.emit, windows, output)
    layouts = {name: layout_of(batch.emit, value, tile) for name, tile in LAYOUTS.items()}
    asked = {name: index.row_index(batch.emit, value, layout, y, x, pad_row) for name, layout in layouts.items()}
    computed, read = batch.finished(asked), set()
    for positions in (*batch.batches[:: 1 if kind == "contiguous" else 5], batch.everywhere):
        found = computed(positions)
        origins, extent = batch.by_definition(positions, FIRST, windows)
        cells = list(cells_read(kind, windows, origins, extent))
        for layout, tile in LAYOUTS.items():
            table = Table(len(positions), *batch.by_definition(positions, FIRST), tile, pad_row, windows)
            assert found[layout].size == len(cells)
            wrong = [(place, cell) for place, cell in cells if found[layout][place] != table.row(*cell)]
            assert not wrong, f"{layout}, patch at {positions.tolist()}: {wrong[:3]}"
        read |= {table.row(*cell) for _, cell in cells}
    assert bool(read & set(range(HEIGHT * WIDTH))) == (kind == "tiles" or name != "one cell"), "of the map"
    assert (HEIGHT * WIDTH + pad_row in read) == (kind == "tiles" or any(one.pads for one in windows)), "of the padding"
    assert max(read) >= HEIGHT * WIDTH + index.PAD_ROWS, "of regions"


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("kind", READS)
def test_rows_of_the_map_and_of_regions_apart(kind, name, extents):
    """Of the map alone whatever was updated; of regions alone, and a number far below zero for all that lies outside."""
    windows, tile, base = WINDOWS[name], (2, 2), 11
    batch = Batch(SIZE, PATCH, extents)
    value, output = batch.box(FIRST), batch.box(FIRST, windows)
    y, x = make_reads(kind, batch.emit, windows, output)
    layout = index.tiled_rows(batch.emit, value, tile)
    cached = index.cached_index(batch.emit, value, y, x, index.LOWEST_ROW)
    computed = batch.finished({"cached": cached, "updated": index.updated_index(batch.emit, value, layout, y, x, base)})
    for positions in batch.batches[::7]:
        found = computed(positions)
        table = Table(len(positions), *batch.by_definition(positions, FIRST), tile, index.LOWEST_ROW, windows)
        for place, cell in cells_read(kind, windows, *batch.by_definition(positions, FIRST, windows)):
            assert found["cached"][place] == table.cached_row(*cell[1:])
            row = table.updated_row(*cell)
            if row is None:
                assert found["updated"][place] < -index.FAR // 2
            else:
                assert found["updated"][place] == row - layout.nothing + base


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("tile", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_of_cells_that_are_chosen(tile, extents):
    """Any cells, in any order, more than once; the number of cells stands for one of padding."""
    batch = Batch(SIZE, PATCH, extents)
    value, output = batch.box(), batch.box()
    given = [batch.emit.input(f"cells {name}", np.int32, [f"{name}{axis}" for axis in range(5)]) for name in "yx"]
    y, x = (chosen_reads(*one) for one in zip(given, SIZE, (output.y, output.x), strict=True))
    computed = batch.finished(
        {"rows": index.row_index(batch.emit, value, layout_of(batch.emit, value, tile), y, x, index.ZERO_ROW)}
    )
    rng = np.random.default_rng(0)
    for positions in batch.batches:
        count = len(positions)
        cells_y = rng.integers(0, HEIGHT + 1, (count, 2, 1, 3, 1)).astype(np.int32)
        cells_x = rng.integers(0, WIDTH + 1, (count, 1, 3, 1, 2)).astype(np.int32)
        found = computed(positions, **{"cells y": cells_y, "cells x": cells_x})["rows"]
        table = Table(count, *batch.by_definition(positions), tile, index.ZERO_ROW)
        assert found.shape == (count, 2, 3, 3, 2)
        for number, row, column, ty, tx in np.ndindex(*found.shape):
            cell = cells_y[number, row, 0, ty, 0], cells_x[number, 0, column, 0, tx]
            assert found[number, row, column, ty, tx] == table.row(number, *map(int, cell))


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("chain", [(), (FIRST,), (FIRST, WINDOWS["strided"])], ids=len)
def test_rows_of_every_cell_of_a_box(chain, extents):
    batch = Batch(SIZE, PATCH, extents)
    box = batch.box(*chain)
    computed = batch.finished({"rows": index.cell_index(batch.emit, box)})
    for positions in batch.batches:
        found, (origins, extent) = computed(positions)["rows"], batch.by_definition(positions, *chain)
        assert found.shape == (len(positions), *extent)
        for number, y, x in np.ndindex(*found.shape):
            assert found[number, y, x] == (origins[number, 0] + y) * box.x.size + origins[number, 1] + x


def test_rows_of_a_whole_map():
    """A box that no place of the patch changes."""
    batch = Batch(SIZE, PATCH, "tight")
    box = Box(*(Axis(batch.places[along], along, None, size) for along, size in enumerate(SIZE)))
    found = batch.finished({"rows": index.cell_index(batch.emit, box)})(batch.everywhere)["rows"]
    np.testing.assert_array_equal(found, np.arange(HEIGHT * WIDTH).reshape(SIZE))


def test_cells_that_lie_within():
    batch = Batch(SIZE, PATCH, "tight")
    cells = batch.emit.input("cells", np.int32, ["n"])
    inside = index.within(batch.emit, cells, batch.emit.int32([2]), batch.emit.int32([5]))
    found = batch.finished({"inside": inside}, np.bool_)(batch.everywhere, cells=np.arange(-1, 8, dtype=np.int32))["inside"]
    assert found.tolist() == [2 <= cell < 5 for cell in range(-1, 8)]
