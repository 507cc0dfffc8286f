"""Index arithmetic of the emitted graph: from a window over a region to the rows it reads.

An activation is read from its *union table* [H*W + 2 + batch*h*w, C]: the rows of the cached map, a row of zeros, a row
of the lowest float, then the rows of the updated regions. Which row a cell comes from is separable: along each axis a
cell has an offset into the cached map (or far above it, when it is padding) and one into its updated region (or far
below, when it lies outside). So only ``max(min(cached_y + cached_x, pad row), updated_y + updated_x)`` is full-size work;
the rest are vectors. All of it is int32, half the traffic of int64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emit import Emitter
from kcompiler.passes.geometry import Spans, Window

FAR = 1 << 29
"""More than any row number; the sum of two of them still fits int32."""
PAD_ROWS = 2
ZERO_ROW = 0
LOWEST_ROW = 1


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a region as tensors: region b covers cells [origin[b], origin[b] + extent) of ``size``.

    Attributes:
        origin: int32 [batch] (or [1] when it is the same for all).
        extent: int32 scalar, shared by the batch.
        size: cells of the map along this axis.
    """

    origin: gs.Tensor
    extent: gs.Tensor
    size: int


@dataclass(frozen=True, slots=True)
class Box:
    """The (y, x) axes of a region."""

    y: Axis
    x: Axis


def region_axis(emit: Emitter, spans: Spans, positions: gs.Tensor, extents: str) -> Axis:
    """The axis of a region for the patch origins ``positions`` (int64 [batch]).

    The extent is the longest span: of all origins when ``extents`` is "static" (a constant), of this batch when it is
    "tight". Near the end of the map the origin is moved inward, so that every region lies inside its map.
    """
    spans = spans.at_least_one()
    start = emit("Gather", emit.int32(spans.start), positions, axis=0)
    if extents == "static":
        extent: gs.Tensor = emit.int32(int(spans.lengths.max()))
    else:
        lengths = emit("Gather", emit.int32(spans.lengths), positions, axis=0)
        extent = emit("ReduceMax", lengths, emit.int64([0]), keepdims=0)
    last = emit("Sub", emit.int32(spans.size), extent)
    return Axis(emit("Min", start, last), extent, spans.size)


def whole_axis(emit: Emitter, size: int) -> Axis:
    """The axis of a region that is the whole map."""
    return Axis(emit.int32([0]), emit.int32(size), size)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of an updated region lie: cell (y, x) of region b in row ``y[y] + x[x] + b * step``.

    Attributes:
        y, x: int32 [extent].
        step: int32 scalar, rows from a region to the next.
        nothing: rows in front of the first region that belong to none, and in which nothing changes.
    """

    y: gs.Tensor
    x: gs.Tensor
    step: gs.Tensor
    nothing: int = 0


def plain_layout(emit: Emitter, box: Box) -> Layout:
    """Region by region, line by line."""
    y, x = (emit("Range", emit.int32(0), axis.extent, emit.int32(1)) for axis in (box.y, box.x))
    return Layout(emit("Mul", y, box.x.extent), x, emit("Mul", box.y.extent, box.x.extent))


def tiled_layout(emit: Emitter, box: Box, tile: tuple[int, int]) -> Layout:
    """Tiles side by side, element by element: [tile height, tile width, 1 + batch * tiles y * tiles x]; the last tiles overhang.

    The first tile belongs to no region: it is what tiles read where nothing changes, so no row of zeros has to be joined on.
    """
    tiles_y, tiles_x = (tile_count(emit, axis, size) for axis, size in zip((box.y, box.x), tile, strict=True))
    step = emit("Mul", tiles_y, tiles_x)
    element = emit("Add", emit("Mul", _batch(emit, box, np.int32), step), emit.int32(1))
    y = _tiled(emit, box.y, tile[0], emit("Mul", element, emit.int32(tile[1])), tiles_x)
    return Layout(y, _tiled(emit, box.x, tile[1], element, emit.int32(1)), step, nothing=1)


def tile_count(emit: Emitter, axis: Axis, tile: int) -> gs.Tensor:
    """Tiles that cover the axis of a region: int32 scalar."""
    return emit("Div", emit("Add", axis.extent, emit.int32(tile - 1)), emit.int32(tile)) if tile > 1 else axis.extent


def _tiled(emit: Emitter, axis: Axis, tile: int, element_step: gs.Tensor, tile_step: gs.Tensor) -> gs.Variable:
    cells = emit("Range", emit.int32(0), axis.extent, emit.int32(1))
    number = emit("Div", cells, emit.int32(tile))
    element = emit("Sub", cells, emit("Mul", number, emit.int32(tile)))
    return emit("Add", emit("Mul", element, element_step), emit("Mul", number, tile_step))


@dataclass(frozen=True, slots=True)
class Order:
    """How the reads along y and x are brought together: axes to insert so that they broadcast to the full index.

    Attributes:
        name: for people.
        lift: axes inserted into a [batch] vector to broadcast with the reads of one axis.
        y, x: axes inserted into the reads along y and along x.
        tiled: whether the reads of one axis are [elements, batch, tiles]: then all tiles become one axis first, behind a
            tile that belongs to no region (broadcasting is slow along short axes).
    """

    name: str
    lift: tuple[int, ...]
    y: tuple[int, ...]
    x: tuple[int, ...]
    tiled: bool = False


LINES = Order("[batch, y, x]", (1,), (2,), (1,))
WINDOWS = Order("[batch, y, x, taps y, taps x]", (1, 2), (2, 4), (1, 3))
TILES = Order("[elements y, elements x, 1 + batch * tiles y * tiles x]", (0, 2), (1,), (0,), tiled=True)


@dataclass(frozen=True, slots=True)
class Reads:
    """Cells read along one axis, in padded coordinates (cell + pad).

    Attributes:
        cells: int32 [batch or 1, cells], [.., outputs, taps] or [elements, .., tiles], by ``order``.
        window: of the node that reads.
        order: how they are brought together with the other axis.
        overhang: how many cells beyond the last window's last they may go (read as padding).
    """

    cells: gs.Tensor
    window: Window
    order: Order
    overhang: int = 0


def contiguous_reads(emit: Emitter, window: Window, output: Axis) -> Reads:
    """Every input cell from the first to the last that the region's windows touch: [batch, (extent - 1) * stride + reach]."""
    first = emit("Mul", output.origin, emit.int32(window.stride))
    span = emit("Mul", emit("Sub", output.extent, emit.int32(1)), emit.int32(window.stride))
    count = emit("Add", span, emit.int32(window.reach))
    steps = emit("Range", emit.int32(0), count, emit.int32(1))
    return Reads(emit("Add", emit("Unsqueeze", first, emit.int64([1])), steps), window, LINES)


def window_reads(emit: Emitter, window: Window, output: Axis) -> Reads:
    """The taps of every window of the region: [batch, extent, kernel]."""
    steps = emit("Range", emit.int32(0), output.extent, emit.int32(1))
    outputs = emit("Add", emit("Unsqueeze", output.origin, emit.int64([1])), steps)
    first = emit("Mul", outputs, emit.int32(window.stride))
    taps = emit.int32(np.arange(window.kernel) * window.dilation)
    return Reads(emit("Add", emit("Unsqueeze", first, emit.int64([2])), taps), window, WINDOWS)


def tile_reads(emit: Emitter, window: Window, output: Axis, tile: int) -> Reads:
    """Every input cell of tiles of ``tile`` outputs: [(tile - 1) * stride + reach, batch, tiles]."""
    numbers = emit("Range", emit.int32(0), tile_count(emit, output, tile), emit.int32(1))
    first = emit("Add", emit("Unsqueeze", output.origin, emit.int64([1])), emit("Mul", numbers, emit.int32(tile)))
    elements = emit.int32(np.arange(window.input_extent(tile)).reshape(-1, 1, 1))
    cells = emit("Add", emit("Mul", emit("Unsqueeze", first, emit.int64([0])), emit.int32(window.stride)), elements)
    return Reads(cells, window, TILES, overhang=(tile - 1) * window.stride)


def row_index(emit: Emitter, value: Box, layout: Layout, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Rows of the union table of a value whose updated region ``value`` lies in ``layout``, for all pairs of reads.

    Returns:
        int32, of the shape that the reads' order names.
    """
    base = value.y.size * value.x.size + PAD_ROWS + layout.nothing
    return emit("Max", cached_index(emit, value, y, x, pad_row), updated_index(emit, value, layout, y, x, base))


def cached_index(emit: Emitter, value: Box, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Rows of a value's own table, for all pairs of reads; ``pad_row`` where they leave the map."""
    width = value.x.size
    cached = outer(emit, "Add", y, _cached_offsets(emit, y, width), x, _cached_offsets(emit, x, 1), emit.int32(FAR))
    if y.order.tiled or any(reads.window.pads or reads.overhang for reads in (y, x)):
        cached = emit("Min", cached, emit.int32(value.y.size * width + pad_row))
    return cached


def updated_index(emit: Emitter, value: Box, layout: Layout, y: Reads, x: Reads, base: int) -> gs.Variable:
    """Rows of the updated region, the first one being row ``base``, for all pairs of reads; far below zero outside of it."""
    # The ramp is cast, not its limit: ONNX's data propagation loses a Cast, and Range then meets mixed types.
    ramp = emit("Cast", emit("Range", emit.int64(0), _batch(emit, value, np.int64), emit.int64(1)), to=TensorProto.INT32)
    first_row = emit("Add", emit("Mul", ramp, layout.step), emit.int32(base))
    along_y = _updated_offsets(emit, value.y, y, layout.y, first_row)
    return outer(emit, "Add", y, along_y, x, _updated_offsets(emit, value.x, x, layout.x, None), emit.int32(-FAR))


def outer(
    emit: Emitter, op: str, y: Reads, along_y: gs.Tensor, x: Reads, along_x: gs.Tensor, nothing: gs.Constant
) -> gs.Variable:
    """``op`` of what is known of the reads along y and of those along x, for all pairs, in the shape that their order names.

    ``nothing`` (scalar) stands for both in the tile that belongs to no region.
    """
    if y.order.tiled:
        tiles = emit(
            "Concat",
            emit.int64([1]),
            emit("Shape", y.cells, start=1),
            emit("Shape", x.cells, start=2),
            axis=0,
        )
        along_y, along_x = (
            _all_tiles(emit, emit("Unsqueeze", along, emit.int64([axis])), tiles, nothing)
            for along, axis in ((along_y, 3), (along_x, 2))
        )
    return emit(op, emit("Unsqueeze", along_y, emit.int64(y.order.y)), emit("Unsqueeze", along_x, emit.int64(x.order.x)))


def _all_tiles(emit: Emitter, along: gs.Tensor, tiles: gs.Tensor, nothing: gs.Constant) -> gs.Variable:
    """[elements, batch, tiles y or 1, tiles x or 1] as [elements, 1 + batch * tiles y * tiles x]."""
    flat = emit("Reshape", emit("Expand", along, tiles), emit.int64([0, -1]))
    first = emit("Expand", nothing, emit("Concat", emit("Shape", along, end=1), emit.int64([1]), axis=0))
    return emit("Concat", first, flat, axis=1)


def cell_index(emit: Emitter, box: Box) -> gs.Variable:
    """Rows of a map's own table (no padding, nothing updated) for every cell of the box: int32 [batch, h, w]."""
    y, x = (contiguous_reads(emit, Window.identity(axis.size), axis).cells for axis in (box.y, box.x))
    lines = emit("Mul", emit("Unsqueeze", y, emit.int64([2])), emit.int32(box.x.size))
    return emit("Add", lines, emit("Unsqueeze", x, emit.int64([1])))


def _cached_offsets(emit: Emitter, reads: Reads, step: int) -> gs.Variable:
    """Along one axis, the offsets of the cells read into the cached map; FAR where they leave it."""
    window = reads.window
    cells = np.arange(window.input_extent(window.outputs) + reads.overhang) - window.pad
    table = np.where((cells >= 0) & (cells < window.inputs), cells * step, FAR)
    return emit("Gather", emit.int32(table), reads.cells, axis=0)


def _updated_offsets(emit: Emitter, axis: Axis, reads: Reads, rows: gs.Tensor, first_row: gs.Tensor | None) -> gs.Variable:
    """Along one axis, the offsets of the cells read into the updated regions; -FAR where they lie outside."""
    lift = emit.int64(reads.order.lift)
    origin = emit("Unsqueeze", emit("Add", axis.origin, emit.int32(reads.window.pad)), lift)
    relative = emit("Sub", reads.cells, origin)
    clipped = emit("Max", emit("Min", relative, emit("Sub", axis.extent, emit.int32(1))), emit.int32(0))
    inside = emit("Equal", relative, clipped)
    offset = emit("Gather", rows, clipped, axis=0)
    if first_row is not None:
        offset = emit("Add", offset, emit("Unsqueeze", first_row, lift))
    return emit("Where", inside, offset, emit.int32(-FAR))


def _batch(emit: Emitter, box: Box, dtype: type[np.signedinteger]) -> gs.Tensor:
    """Scalar: how many regions."""
    count = emit("Squeeze", emit("Shape", box.y.origin, end=1))
    return emit("Cast", count, to=TensorProto.INT32) if dtype is np.int32 else count
