"""Index arithmetic of the emitted graph: from a window over a region to the rows it reads.

An activation is read from its *union table* [H*W + 2 + batch*h*w, C]: the rows of the cached map, a row of zeros, a row
of the lowest float, then the rows of the updated regions. Which row a cell comes from is separable: along each axis a
cell has an offset into the cached map (or far above it, when it is padding) and one into its updated region (or far
below, when it lies outside). So only ``max(min(cached_y + cached_x, pad row), updated_y + updated_x)`` is full-size work;
the rest are vectors, looked up in small tables. All of it is int32, half the traffic of int64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emission.box import Axis, Box, first_of
from kcompiler.passes.emission.reads import Reads, contiguous_reads
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.regions.geometry import Window

FAR = 1 << 29
"""More than any row number; the sum of two of them still fits int32."""
PAD_ROWS = 2
ZERO_ROW = 0
LOWEST_ROW = 1


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """Where the rows of an updated region lie: cell (y, x) of region b in row ``y[y] + x[x] + b * step``.

    Attributes:
        y, x: int32 [extent].
        step: int32 [1], rows from a region to the next.
        nothing: rows in front of the first region that belong to none, and in which nothing changes.
    """

    y: gs.Tensor
    x: gs.Tensor
    step: gs.Tensor
    nothing: int = 0


def plain_rows(emit: Emitter, box: Box) -> RowNumbers:
    """Region by region, line by line."""
    y, x = (first_of(emit, np.arange(axis.size), axis.extent(emit), [-1]) for axis in (box.y, box.x))
    return RowNumbers(emit("Mul", y, box.x.extent(emit)), x, emit("Mul", box.y.extent(emit), box.x.extent(emit)))


def tiled_rows(emit: Emitter, box: Box, tile: tuple[int, int]) -> RowNumbers:
    """Tiles side by side, element by element: [tile height, tile width, 1 + batch * tiles y * tiles x]; the last tiles overhang.

    The first tile belongs to no region: it is what tiles read where nothing changes, so no row of zeros has to be joined on.
    """
    tiles_y, tiles_x = (axis.extent(emit, tile=size) for axis, size in zip((box.y, box.x), tile, strict=True))
    step = emit("Mul", tiles_y, tiles_x)
    element = emit("Add", emit("Mul", box.y.places.batch, step), emit.int32([1]))
    y = _tiled(emit, box.y, tile[0], emit("Mul", element, emit.int32([tile[1]])), tiles_x)
    return RowNumbers(y, _tiled(emit, box.x, tile[1], element, None), step, nothing=1)


def _tiled(emit: Emitter, axis: Axis, tile: int, element_step: gs.Tensor, tile_step: gs.Tensor | None) -> gs.Variable:
    cells = np.arange(axis.size)
    number, element = (first_of(emit, values, axis.extent(emit), [-1]) for values in (cells // tile, cells % tile))
    tiles = emit("Mul", number, tile_step) if tile_step is not None else number
    return emit("Add", emit("Mul", element, element_step), tiles)


def row_index(emit: Emitter, value: Box, numbers: RowNumbers, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Rows of a value's union table, whose updated region ``value`` has rows of ``numbers``, for all pairs of reads: int32."""
    base = value.y.size * value.x.size + PAD_ROWS + numbers.nothing
    return emit("Max", cached_index(emit, value, y, x, pad_row), updated_index(emit, value, numbers, y, x, base))


def cached_index(emit: Emitter, value: Box, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Rows of a value's own table, for all pairs of reads; ``pad_row`` where they leave the map."""
    width = value.x.size
    cached = emit("Add", _cached_offsets(emit, y, width), _cached_offsets(emit, x, 1))
    if y.pads or x.pads:
        cached = emit("Min", cached, emit.int32(value.y.size * width + pad_row))
    return cached


def updated_index(emit: Emitter, value: Box, numbers: RowNumbers, y: Reads, x: Reads, base: int) -> gs.Variable:
    """Rows of the updated region, the first one being row ``base``, for all pairs of reads; far below zero outside of it."""
    along_y = emit("Add", _updated_offsets(emit, value.y, y, numbers.y), y.by_region(emit, numbers.step, base))
    return emit("Add", along_y, _updated_offsets(emit, value.x, x, numbers.x))


def cell_index(emit: Emitter, box: Box) -> gs.Variable:
    """Rows of a map's own table (no padding, nothing updated) for every cell of the box: int32 [batch, h, w]."""
    y, x = (contiguous_reads(emit, Window.identity(axis.size), axis).cells for axis in (box.y, box.x))
    return emit("Add", emit("Mul", y, emit.int32(box.x.size)), x)


def _cached_offsets(emit: Emitter, reads: Reads, step: int) -> gs.Variable:
    """Along one axis, the offsets of the cells read into the cached map; FAR where they leave it."""
    window = reads.window
    cells = np.arange(window.input_extent(window.outputs)) - window.pad
    table = np.where((cells >= 0) & (cells < window.inputs), cells * step, FAR)
    return reads.lookup(emit, table.astype(np.int32), FAR)


def _updated_offsets(emit: Emitter, axis: Axis, reads: Reads, rows: gs.Tensor) -> gs.Variable:
    """Along one axis, the offsets of the cells read into the updated regions; -FAR where they lie outside."""
    before, behind = (emit.int32(np.full(count, -FAR)) for count in reads.margins(axis))
    table = emit("Concat", before, rows, behind, axis=0)
    return emit("Gather", table, reads.relative(emit, axis, len(before.values)), axis=0)


def within(emit: Emitter, cells: gs.Tensor, zero: gs.Constant, count: gs.Tensor) -> gs.Variable:
    """Which of ``cells`` are at least ``zero`` and less than ``count``; all of one type of integers."""
    return emit("And", emit("GreaterOrEqual", cells, zero), emit("Less", cells, count))
