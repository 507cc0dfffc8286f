"""The input cells that a region's outputs read along one axis: receptive field, taps of windows, arbitrary cells, tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emission.box import Axis, Box, first_of
from kcompiler.passes.emission.places import Places
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.regions.geometry import Window
from kcompiler.runtime.arrays import AnyArray

MARGIN = 64
"""Margins of tables are rounded up to a multiple of this, so that reads by different windows share tables."""


@dataclass(frozen=True, slots=True)
class Reads(ABC):
    """Cells read along one axis, in padded coordinates (cell + pad).

    The tensors of reads along y and along x broadcast to the index of the Gather; subclasses say its shape.

    Attributes:
        cells: int32.
        window: of the reading node.
        overhang: cells beyond the end of the last window that may be read, as padding.
    """

    cells: gs.Tensor
    window: Window
    overhang: int

    @abstractmethod
    def relative(self, emit: Emitter, value: Axis, margin: int) -> gs.Tensor:
        """The cells relative to the origin of the region of ``value``, + ``margin``: int32."""

    @abstractmethod
    def by_region(self, emit: Emitter, step: gs.Tensor, base: int) -> gs.Tensor:
        """The index in the batch of each read's patch position, * ``step`` (int32 [1]) + ``base``: int32."""

    @property
    def pads(self) -> bool:
        """Whether cells outside the map may be read."""
        return self.window.pads or self.overhang > 0

    def lookup(self, emit: Emitter, values: AnyArray, beyond: np.generic | float) -> gs.Variable:
        """Gathers ``values`` [padded cells of the map] at the cells read; cells behind their end take ``beyond``."""
        padded = self.window.input_extent(self.window.outputs) + self.overhang
        rest = np.full(max(padded - len(values), 0), beyond, values.dtype)
        return emit("Gather", emit.constant(np.concatenate([values, rest])), self.cells, axis=0)

    def margins(self, value: Axis) -> tuple[int, int]:
        """The largest number of cells read before the origin of a region, and behind its end, rounded up."""
        before = value.size + self.window.pad + self.overhang
        behind = self.window.input_extent(self.window.outputs) + self.overhang
        return -(-before // MARGIN) * MARGIN, -(-behind // MARGIN) * MARGIN


@dataclass(frozen=True, slots=True)
class _Regular(Reads):
    """Reads at the same offsets for every region of the batch.

    Attributes:
        output: axis of the output region.
        rank: number of axes of the index.
        steps: int32, offsets from the first cell that the region's first output reads.
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
    """Every input cell of the region's receptive field; the index is [batch, y, x]."""
    count = output.extent(emit, window.stride, window.reach - window.stride)
    ramp = np.arange(window.input_extent(output.size))
    return _Regular.of(emit, window, output, 3, first_of(emit, ramp, count, [-1, 1] if output.along == 0 else [-1]))


def window_reads(emit: Emitter, window: Window, output: Axis) -> Reads:
    """The taps of every output's window; the index is [batch, y, x, taps y, taps x]."""
    taps = np.arange(output.size)[:, None] * window.stride + np.arange(window.kernel) * window.dilation
    shape = [-1, 1, window.kernel, 1] if output.along == 0 else [-1, 1, window.kernel]
    return _Regular.of(emit, window, output, 5, first_of(emit, taps, output.extent(emit), shape))


@dataclass(frozen=True, slots=True)
class _Chosen(Reads):
    """Reads of arbitrary cells, given as a tensor; the index is [batch, y, x, taps y, taps x].

    Attributes:
        places: the patch positions of the batch along the axis.
    """

    places: Places

    def relative(self, emit: Emitter, value: Axis, margin: int) -> gs.Tensor:
        assert value.number is not None, "a region is updated, not a whole map"
        return emit("Sub", self.cells, value.places.origins(value.number, 5, 1, -margin))

    def by_region(self, emit: Emitter, step: gs.Tensor, base: int) -> gs.Tensor:
        return emit("Add", emit("Mul", self.places.ramp(5), step), emit.int32([base]))


def chosen_reads(cells: gs.Tensor, inputs: int, output: Axis) -> Reads:
    """Reads of ``cells`` of a map of ``inputs`` cells along the axis; the cell ``inputs`` is padding.

    ``cells`` are int32 [batch, y, 1, taps, 1] along y and [batch, 1, x, 1, taps] along x.
    """
    return _Chosen(cells, Window.identity(inputs), 1, output.places)


@dataclass(frozen=True, slots=True)
class _Tiles(Reads):
    """Reads of output tiles; the index is [elements y, elements x, 1 + batch * tiles y * tiles x].

    The first tile belongs to no region. Tiles are flattened to one axis before any lookup: broadcasting is slow on short axes.

    Attributes:
        output: axis of the output region.
        grid: int32 [tiles y, tiles x], offset of the first cell of each tile from that of the region's first tile.
        none: int32 [tiles y, tiles x], zeros, to broadcast with.
        elements: int32 [elements, 1, 1] along y, [elements, 1] along x: offsets within a tile.
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
    """``tiles`` [batch, tiles y, tiles x] flattened, with ``nothing`` prepended: [1 + batch * tiles y * tiles x]."""
    return emit("Concat", emit.int32([nothing]), emit("Reshape", tiles, emit.int64([-1])), axis=0)


def tile_reads(emit: Emitter, windows: tuple[Window, Window], output: Box, tile: tuple[int, int]) -> tuple[Reads, Reads]:
    """Reads, along y and x, of every input cell of output tiles of size ``tile``."""
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
        count, overhang = window.input_extent(size), (size - 1) * window.stride
        elements = emit.int32(np.arange(count).reshape([-1, 1, 1] if along == 0 else [-1, 1]))
        first = emit("Add", axis.places.origins(axis.number, 3, window.stride), grid)
        cells = emit("Add", _flat(emit, first, window.input_extent(window.outputs) + overhang), elements)
        reads.append(_Tiles(cells, window, overhang + count, axis, grid, none, elements))
    y, x = reads
    return y, x
