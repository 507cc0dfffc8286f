"""Index arithmetic of the emitted graph: from a window over a region to the rows it reads.

An activation is read from its *union table* [H*W + 2 + batch*h*w, C]: the rows of the cached map, a row of zeros, a row
of the lowest float, then the rows of the updated regions. Which row a cell comes from is separable: along each axis a
cell has an offset into the cached map (or far above it, when it is padding) and one into its updated region (or far
below, when it lies outside). So only ``max(min(cached_y + cached_x, pad row), updated_y + updated_x)`` is full-size work;
the rest are vectors, looked up in small tables. All of it is int32, half the traffic of int64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emit import Array, Emitter
from kcompiler.passes.geometry import IntArray, Spans, Window
from kcompiler.passes.places import Places

FAR = 1 << 29
"""More than any row number; the sum of two of them still fits int32."""
PAD_ROWS = 2
ZERO_ROW = 0
LOWEST_ROW = 1
MARGIN = 64
"""Margins of tables are rounded up to this many cells, so that reads by different windows share them."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the regions of a batch: all as long as the largest, from their origins on.

    Attributes:
        places: of the batch's patches along this axis.
        along: 0 for y, 1 for x.
        number: by which ``places`` knows the regions; None is the whole map.
        size: cells of the map along this axis.
    """

    places: Places
    along: int
    number: int | None
    size: int

    def extent(self, emit: Emitter, factor: int = 1, offset: int = 0, tile: int = 1) -> gs.Tensor:
        """Cells, or tiles that cover them, * ``factor`` + ``offset``: int32 [1]."""
        if self.number is None:
            return emit.int32([-(-self.size // tile) * factor + offset])
        return self.places.largest(self.number, factor, offset, tile)


@dataclass(frozen=True, slots=True)
class Box:
    """The (y, x) axes of a region."""

    y: Axis
    x: Axis


def first_of(emit: Emitter, values: IntArray, count: gs.Tensor, shape: Sequence[int]) -> gs.Variable:
    """The first ``count`` (int32 [1]) along the first axis of ``values`` in ``shape``."""
    return emit("Slice", emit.int32(values.reshape(shape)), emit.int32([0]), count, emit.int32([0]))


def region_axis(places: Places, along: int, spans: Spans) -> Axis:
    """The axis of a region; where the patch changes nothing, it is one cell."""
    return Axis(places, along, places.number(spans.at_least_one()), spans.size)


@dataclass(frozen=True, slots=True)
class Layout:
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


def plain_layout(emit: Emitter, box: Box) -> Layout:
    """Region by region, line by line."""
    y, x = (first_of(emit, np.arange(axis.size), axis.extent(emit), [-1]) for axis in (box.y, box.x))
    return Layout(emit("Mul", y, box.x.extent(emit)), x, emit("Mul", box.y.extent(emit), box.x.extent(emit)))


def tiled_layout(emit: Emitter, box: Box, tile: tuple[int, int]) -> Layout:
    """Tiles side by side, element by element: [tile height, tile width, 1 + batch * tiles y * tiles x]; the last tiles overhang.

    The first tile belongs to no region: it is what tiles read where nothing changes, so no row of zeros has to be joined on.
    """
    tiles_y, tiles_x = (axis.extent(emit, tile=size) for axis, size in zip((box.y, box.x), tile, strict=True))
    step = emit("Mul", tiles_y, tiles_x)
    element = emit("Add", emit("Mul", box.y.places.batch, step), emit.int32([1]))
    y = _tiled(emit, box.y, tile[0], emit("Mul", element, emit.int32([tile[1]])), tiles_x)
    return Layout(y, _tiled(emit, box.x, tile[1], element, None), step, nothing=1)


def _tiled(emit: Emitter, axis: Axis, tile: int, element_step: gs.Tensor, tile_step: gs.Tensor | None) -> gs.Variable:
    cells = np.arange(axis.size)
    number, element = (first_of(emit, values, axis.extent(emit), [-1]) for values in (cells // tile, cells % tile))
    tiles = emit("Mul", number, tile_step) if tile_step is not None else number
    return emit("Add", emit("Mul", element, element_step), tiles)


@dataclass(frozen=True, slots=True)
class Reads(ABC):
    """Cells read along one axis, in padded coordinates (cell + pad).

    Tensors of the reads along y and along x broadcast to the full index, whatever shape that has.

    Attributes:
        cells: int32.
        window: of the node that reads.
        overhang: how many cells beyond the last window's last they may go (read as padding).
    """

    cells: gs.Tensor
    window: Window
    overhang: int

    @abstractmethod
    def relative(self, emit: Emitter, value: Axis, margin: int) -> gs.Tensor:
        """The cells counted from the origin of the value's region, + ``margin``."""

    @abstractmethod
    def by_region(self, emit: Emitter, step: gs.Tensor, base: int) -> gs.Tensor:
        """Number of the region that a read is for, * ``step`` (int32 [1]) + ``base``."""

    @property
    def pads(self) -> bool:
        """Whether cells outside the map may be read."""
        return self.window.pads or self.overhang > 0

    def lookup(self, emit: Emitter, values: Array, beyond: np.generic | float) -> gs.Variable:
        """What ``values`` [padded cells of the map] has for the cells read, ``beyond`` for those behind them."""
        padded = self.window.input_extent(self.window.outputs) + self.overhang
        rest = np.full(max(padded - len(values), 0), beyond, values.dtype)
        return emit("Gather", emit.constant(np.concatenate([values, rest])), self.cells, axis=0)

    def margins(self, value: Axis) -> tuple[int, int]:
        """How many cells may be read before the origin of a region, and behind its end."""
        before = value.size + self.window.pad + self.overhang
        behind = self.window.input_extent(self.window.outputs) + self.overhang
        return -(-before // MARGIN) * MARGIN, -(-behind // MARGIN) * MARGIN


@dataclass(frozen=True, slots=True)
class _Regular(Reads):
    """Reads of a region at regular steps.

    Attributes:
        output: axis of the region that is computed.
        rank: axes of the index.
        steps: int32, cells counted from the first that the region's first output reads.
    """

    output: Axis
    rank: int
    steps: gs.Tensor

    @classmethod
    def of(cls, emit: Emitter, window: Window, output: Axis, rank: int, steps: gs.Tensor) -> _Regular:
        cells = steps
        if output.number is not None:
            cells = emit("Add", output.places.origins(output.number, rank, window.stride), steps)
        return cls(cells, window, 0, output, rank, steps)

    def relative(self, emit: Emitter, value: Axis, margin: int) -> gs.Tensor:
        assert value.number is not None, "a region is updated, not a whole map"
        stride, offset = self.window.stride, margin - self.window.pad
        first = self.output.places.differences(self.output.number, value.number, self.rank, stride, offset)
        return emit("Add", first, self.steps)

    def by_region(self, emit: Emitter, step: gs.Tensor, base: int) -> gs.Tensor:
        return emit("Add", emit("Mul", self.output.places.ramp(self.rank), step), emit.int32([base]))


def contiguous_reads(emit: Emitter, window: Window, output: Axis) -> Reads:
    """Every input cell from the first to the last that the region's windows touch; the index is [batch, y, x]."""
    count = output.extent(emit, window.stride, window.reach - window.stride)
    ramp = np.arange(window.input_extent(output.size))
    return _Regular.of(emit, window, output, 3, first_of(emit, ramp, count, [-1, 1] if output.along == 0 else [-1]))


def window_reads(emit: Emitter, window: Window, output: Axis) -> Reads:
    """The taps of every window of the region; the index is [batch, y, x, taps y, taps x]."""
    taps = np.arange(output.size)[:, None] * window.stride + np.arange(window.kernel) * window.dilation
    shape = [-1, 1, window.kernel, 1] if output.along == 0 else [-1, 1, window.kernel]
    return _Regular.of(emit, window, output, 5, first_of(emit, taps, output.extent(emit), shape))


@dataclass(frozen=True, slots=True)
class _Chosen(Reads):
    """Reads of cells that follow no rule; the index is [batch, y, x, taps y, taps x].

    Attributes:
        places: of the batch's patches along the axis.
    """

    places: Places

    def relative(self, emit: Emitter, value: Axis, margin: int) -> gs.Tensor:
        assert value.number is not None, "a region is updated, not a whole map"
        return emit("Sub", self.cells, value.places.origins(value.number, 5, 1, -margin))

    def by_region(self, emit: Emitter, step: gs.Tensor, base: int) -> gs.Tensor:
        return emit("Add", emit("Mul", self.places.ramp(5), step), emit.int32([base]))


def chosen_reads(cells: gs.Tensor, inputs: int, output: Axis) -> Reads:
    """Of every output the ``cells`` given, of ``inputs``; that number itself is a cell of padding.

    They are int32 [batch, y, 1, taps, 1] along y and [batch, 1, x, 1, taps] along x.
    """
    return _Chosen(cells, Window.identity(inputs), 1, output.places)


@dataclass(frozen=True, slots=True)
class _Tiles(Reads):
    """Reads of tiles of outputs; the index is [elements y, elements x, 1 + batch * tiles y * tiles x].

    The first tile belongs to no region. Tiles become one axis before they are looked up: broadcasting is slow along short axes.

    Attributes:
        output: axis of the region that is computed.
        grid: int32 [tiles y, tiles x], cells from the first that the region's first tile reads to the first of each tile.
        none: int32 [tiles y, tiles x], zeros.
        elements: int32 [elements, 1, 1] along y, [elements, 1] along x.
    """

    output: Axis
    grid: gs.Tensor
    none: gs.Tensor
    elements: gs.Tensor

    def relative(self, emit: Emitter, value: Axis, margin: int) -> gs.Tensor:
        assert value.number is not None, "a region is updated, not a whole map"
        stride, offset = self.window.stride, margin - self.window.pad
        first = self.output.places.differences(self.output.number, value.number, 3, stride, offset)
        return emit("Add", _flat(emit, emit("Add", first, self.grid), 0), self.elements)

    def by_region(self, emit: Emitter, step: gs.Tensor, base: int) -> gs.Tensor:
        rows = emit("Add", emit("Mul", self.output.places.ramp(3), step), emit.int32([base]))
        return _flat(emit, emit("Add", rows, self.none), 0)


def _flat(emit: Emitter, tiles: gs.Tensor, nothing: int) -> gs.Variable:
    """[batch, tiles y, tiles x] as [1 + batch * tiles y * tiles x], ``nothing`` in front."""
    return emit("Concat", emit.int32([nothing]), emit("Reshape", tiles, emit.int64([-1])), axis=0)


def tile_reads(emit: Emitter, windows: tuple[Window, Window], output: Box, tile: tuple[int, int]) -> tuple[Reads, Reads]:
    """Every input cell of tiles of ``tile`` outputs, along y and along x."""
    axes = output.y, output.x
    counts = [axis.extent(emit, tile=size) for axis, size in zip(axes, tile, strict=True)]

    def steps(along: int, factor: int) -> gs.Variable:
        numbers = np.arange(-(-axes[along].size // tile[along])) * factor
        return first_of(emit, numbers, counts[along], [-1, 1] if along == 0 else [-1])

    none = emit("Add", steps(0, 0), steps(1, 0))
    reads = []
    for along, (axis, window, size) in enumerate(zip(axes, windows, tile, strict=True)):
        assert axis.number is not None, "a region is computed, not a whole map"
        grid = emit("Add", steps(along, size * window.stride), steps(1 - along, 0))
        count, over = window.input_extent(size), (size - 1) * window.stride
        elements = emit.int32(np.arange(count).reshape([-1, 1, 1] if along == 0 else [-1, 1]))
        first = emit("Add", axis.places.origins(axis.number, 3, window.stride), grid)
        cells = emit("Add", _flat(emit, first, window.input_extent(window.outputs) + over), elements)
        reads.append(_Tiles(cells, window, over + count, axis, grid, none, elements))
    y, x = reads
    return y, x


def row_index(emit: Emitter, value: Box, layout: Layout, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Rows of the union table of a value whose updated region ``value`` lies in ``layout``, for all pairs of reads: int32."""
    base = value.y.size * value.x.size + PAD_ROWS + layout.nothing
    return emit("Max", cached_index(emit, value, y, x, pad_row), updated_index(emit, value, layout, y, x, base))


def cached_index(emit: Emitter, value: Box, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Rows of a value's own table, for all pairs of reads; ``pad_row`` where they leave the map."""
    width = value.x.size
    cached = emit("Add", _cached_offsets(emit, y, width), _cached_offsets(emit, x, 1))
    if y.pads or x.pads:
        cached = emit("Min", cached, emit.int32(value.y.size * width + pad_row))
    return cached


def updated_index(emit: Emitter, value: Box, layout: Layout, y: Reads, x: Reads, base: int) -> gs.Variable:
    """Rows of the updated region, the first one being row ``base``, for all pairs of reads; far below zero outside of it."""
    along_y = emit("Add", _updated_offsets(emit, value.y, y, layout.y), y.by_region(emit, layout.step, base))
    return emit("Add", along_y, _updated_offsets(emit, value.x, x, layout.x))


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
