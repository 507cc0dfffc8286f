"""Index arithmetic of the emitted graph: from the reads of a region to rows of a table.

An activation is gathered from its *union table* [H*W + 2 + batch*h*w, C]: the rows of the cached map, a row of zeros, a row of
the lowest float, then the rows of the updated regions. The row of a cell is separable: along each axis a cell has an offset
into the cached map (far above it for padding) and an offset into its updated region (far below zero outside of it). So only
``max(min(cached_y + cached_x, pad row), updated_y + updated_x)`` is computed at full size; the rest are vectors, gathered from
small tables. All indices are int32, half the traffic of int64.
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
"""More than any row index; the sum of two still fits int32."""
PAD_ROWS = 2
"""Rows of padding behind a cached map: zeros at ZERO_ROW and the lowest float at LOWEST_ROW, counted from the map's end."""
ZERO_ROW = 0
LOWEST_ROW = 1


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """The row indices of updated regions: cell (y, x) of region b is in row ``y[y] + x[x] + b * step``.

    Attributes:
        y, x: int32 [extent].
        step: int32 [1], rows from a region to the next.
        nothing: leading rows that belong to no region, and whose change is zero.
    """

    y: gs.Tensor
    x: gs.Tensor
    step: gs.Tensor
    nothing: int = 0


def plain_rows(emit: Emitter, box: Box) -> RowNumbers:
    """Row-major order, region by region."""
    y, x = (first_of(emit, np.arange(axis.size), axis.extent(emit), [-1]) for axis in (box.y, box.x))
    return RowNumbers(emit("Mul", y, box.x.extent(emit)), x, emit("Mul", box.y.extent(emit), box.x.extent(emit)))


def tiled_rows(emit: Emitter, box: Box, tile: tuple[int, int]) -> RowNumbers:
    """Tile order: rows are [tile height, tile width, 1 + batch * tiles y * tiles x]; the last tiles overhang the region.

    The first tile belongs to no region: reads outside of regions take its rows, so no row of zeros has to be concatenated.
    """
    tiles_y, tiles_x = (axis.extent(emit, tile=size) for axis, size in zip((box.y, box.x), tile, strict=True))
    step = emit("Mul", tiles_y, tiles_x)
    element = emit("Add", emit("Mul", box.y.places.batch, step), emit.int32([1]))
    y = _tiled(emit, box.y, tile[0], emit("Mul", element, emit.int32([tile[1]])), tiles_x)
    return RowNumbers(y, _tiled(emit, box.x, tile[1], element, None), step, nothing=1)


def _tiled(emit: Emitter, axis: Axis, tile: int, element_step: gs.Tensor, tile_step: gs.Tensor | None) -> gs.Variable:
    """int32 [extent]: element within the tile * ``element_step`` + number of the tile * ``tile_step`` (1 if None)."""
    cells = np.arange(axis.size)
    number, element = (first_of(emit, values, axis.extent(emit), [-1]) for values in (cells // tile, cells % tile))
    tiles = emit("Mul", number, tile_step) if tile_step is not None else number
    return emit("Add", emit("Mul", element, element_step), tiles)


def row_index(emit: Emitter, value: Box, numbers: RowNumbers, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Indices into a value's union table for all pairs of reads: int32. ``numbers`` are the rows of its updated regions."""
    base = value.y.size * value.x.size + PAD_ROWS + numbers.nothing
    return emit("Max", cached_index(emit, value, y, x, pad_row), updated_index(emit, value, numbers, y, x, base))


def cached_index(emit: Emitter, value: Box, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Indices into a value's cached table for all pairs of reads: int32; ``pad_row`` for reads outside the map."""
    width = value.x.size
    cached = emit("Add", _cached_offsets(emit, y, width), _cached_offsets(emit, x, 1))
    if y.pads or x.pads:
        cached = emit("Min", cached, emit.int32(value.y.size * width + pad_row))
    return cached


def updated_index(emit: Emitter, value: Box, numbers: RowNumbers, y: Reads, x: Reads, base: int) -> gs.Variable:
    """Indices of updated rows, counted from ``base``, for all pairs of reads: int32; far below zero outside of the region."""
    along_y = emit("Add", _updated_offsets(emit, value.y, y, numbers.y), y.by_region(emit, numbers.step, base))
    return emit("Add", along_y, _updated_offsets(emit, value.x, x, numbers.x))


def cell_index(emit: Emitter, box: Box) -> gs.Variable:
    """Indices into the cached table for every cell of the box, without padding: int32 [batch, h, w]."""
    y, x = (contiguous_reads(emit, Window.identity(axis.size), axis).cells for axis in (box.y, box.x))
    return emit("Add", emit("Mul", y, emit.int32(box.x.size)), x)


def _cached_offsets(emit: Emitter, reads: Reads, step: int) -> gs.Variable:
    """Offsets into the cached map along one axis, ``step`` per cell; FAR for padding."""
    window = reads.window
    cells = np.arange(window.input_extent(window.outputs)) - window.pad
    table = np.where((cells >= 0) & (cells < window.inputs), cells * step, FAR)
    return reads.lookup(emit, table.astype(np.int32), FAR)


def _updated_offsets(emit: Emitter, axis: Axis, reads: Reads, rows: gs.Tensor) -> gs.Variable:
    """Offsets into the updated regions along one axis, by ``rows`` (int32 [extent]); -FAR outside of them."""
    before, behind = (emit.int32(np.full(count, -FAR)) for count in reads.margins(axis))
    table = emit("Concat", before, rows, behind, axis=0)
    return emit("Gather", table, reads.relative(emit, axis, len(before.values)), axis=0)


def within(emit: Emitter, cells: gs.Tensor, zero: gs.Constant, count: gs.Tensor) -> gs.Variable:
    """Whether ``zero`` <= ``cells`` < ``count``, elementwise: bool. All operands have the same integer type."""
    return emit("And", emit("GreaterOrEqual", cells, zero), emit("Less", cells, count))
