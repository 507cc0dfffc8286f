"""Where a lowering works: updated regions in the emitted graph, and how they are read with the cached map around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from kcompiler.passes.emit import Emitter
from kcompiler.passes.geometry import Window
from kcompiler.passes.index import (
    LOWEST_ROW,
    ZERO_ROW,
    Box,
    Layout,
    Reads,
    contiguous_reads,
    plain_layout,
    row_index,
    tile_reads,
    tiled_layout,
    window_reads,
)

__all__ = ["LOWEST_ROW", "ZERO_ROW", "Operand", "Site", "Tile", "Updated", "as_rows"]

Tile = tuple[int, int]
"""(height, width) in outputs."""


@dataclass(frozen=True, slots=True)
class Updated:
    """The recomputed region of a value, for a batch of positions, in one of two layouts.

    Attributes:
        box: where it lies.
        channels: C.
        rows: [rows, C] ordered by ``tile``, or None where the region is held as ``maps``.
        maps: [batch, C, h, w], or None.
        tile: (height, width) of the tiles that rows are ordered by; None is region by region, line by line: [batch * h * w, C].
    """

    box: Box
    channels: int
    rows: gs.Tensor | None = None
    maps: gs.Tensor | None = None
    tile: Tile | None = None

    def layout(self, emit: Emitter) -> Layout:
        return plain_layout(emit, self.box) if self.tile is None else tiled_layout(emit, self.box, self.tile)


def as_rows(emit: Emitter, value: Updated) -> gs.Tensor:
    """The region as rows, in its own layout."""
    if value.rows is not None:
        return value.rows
    return emit("Reshape", emit("Transpose", value.maps, perm=[0, 2, 3, 1]), emit.int64([-1, value.channels]))


@dataclass(frozen=True, slots=True)
class Operand:
    """An incremental input of a node: its updated region, and how to get the cached map around it.

    Attributes:
        updated: the region.
        cached: returns the cached rows [H * W + 2, C] (the first call makes them an input of the graph).
    """

    updated: Updated
    cached: Callable[[], gs.Tensor]

    def read(self, emit: Emitter, y: Reads, x: Reads, pad_row: int = ZERO_ROW) -> gs.Variable:
        """The cells read, of the cached map with the updated region in it: [*shape that the reads' order names, C]."""
        index = row_index(emit, self.updated.box, self.updated.layout(emit), y, x, pad_row)
        union = emit("Concat", self.cached(), as_rows(emit, self.updated), axis=0)
        return emit("Gather", union, index, axis=0)


@dataclass(frozen=True, slots=True)
class Site:
    """One incremental node to lower.

    Attributes:
        emit: the graph under construction.
        node: the node of the source graph.
        inputs: per input of the node, its operand, or None for a constant.
        output: box of the region to compute.
        channels: C of the output.
        windows: (y, x) windows of a sliding-window node, identity windows otherwise.
    """

    emit: Emitter
    node: gs.Node
    inputs: tuple[Operand | None, ...]
    output: Box
    channels: int
    windows: tuple[Window, Window]

    @property
    def operand(self) -> Operand:
        """The first input, which is the data input of every node but a merge."""
        first = self.inputs[0]
        assert first is not None
        return first

    def constant(self, value: gs.Tensor) -> gs.Constant:
        """A constant input of the source node, in the graph under construction."""
        return self.emit.constant(value.values, value.name)

    def attribute(self, name: str, default: object) -> object:
        return self.node.attrs.get(name, default)

    def cells(self, operand: Operand, pad_row: int = ZERO_ROW) -> gs.Variable:
        """Every cell that the windows of the output region touch, padding included: [batch, h, w, C]."""
        y, x = (
            contiguous_reads(self.emit, w, axis) for w, axis in zip(self.windows, (self.output.y, self.output.x), strict=True)
        )
        return operand.read(self.emit, y, x, pad_row)

    def patches(self, operand: Operand, pad_row: int = ZERO_ROW) -> gs.Variable:
        """The window of every output cell (im2col): [batch, h, w, kernel h, kernel w, C]."""
        y, x = (window_reads(self.emit, w, axis) for w, axis in zip(self.windows, (self.output.y, self.output.x), strict=True))
        return operand.read(self.emit, y, x, pad_row)

    def tiles(self, operand: Operand, tile: Tile) -> gs.Variable:
        """Every input cell of tiles of outputs: [cells y, cells x, batch, tiles y, tiles x, C]."""
        y, x = (
            tile_reads(self.emit, w, axis, size)
            for w, axis, size in zip(self.windows, (self.output.y, self.output.x), tile, strict=True)
        )
        return operand.read(self.emit, y, x)

    def aligned_rows(self, operand: Operand, tile: Tile | None) -> gs.Tensor:
        """An operand on the output's box, rows ordered by ``tile``: as it is when it lies so, otherwise read around its region."""
        value = operand.updated
        if value.box == self.output and value.tile == tile:
            return as_rows(self.emit, value)
        cells = self.cells(operand) if tile is None else self.tiles(operand, tile)
        return self.emit("Reshape", cells, self.emit.int64([-1, value.channels]))

    def shared_tile(self) -> Tile | None:
        """The order of rows in which the fewest inputs that lie on the output's box must be read again."""
        tiles = [o.updated.tile for o in self.inputs if o is not None and o.updated.box == self.output]
        return max(tiles, key=tiles.count, default=None)

    def computed(self, *, rows: gs.Tensor | None = None, maps: gs.Tensor | None = None, tile: Tile | None = None) -> Updated:
        return Updated(self.output, self.channels, rows, maps, tile)
