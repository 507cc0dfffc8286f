"""Where a lowering works: a node with its operands, and how they are read for the region to compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emission.box import Box
from kcompiler.passes.emission.index import ZERO_ROW
from kcompiler.passes.emission.reads import Reads, contiguous_reads, tile_reads, window_reads
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.operand import Operand, Tile, Updated, as_rows, cached_rows, in_regions
from kcompiler.passes.lowering.scaled import Scaled
from kcompiler.passes.regions.geometry import Window
from kcompiler.passes.regions.region import Region

OVERHANG_COST = 8.0
"""What a row more costs in later nodes, over reading a row again."""
TYPICAL_BATCH = 64
COPIES = 2.0
"""Passes over the cells read that it takes more to copy them before the updated rows are joined on."""


@dataclass(frozen=True, slots=True)
class Site:
    """One incremental node to lower.

    Attributes:
        emit: the graph under construction.
        node: the node of the source graph.
        inputs: per input of the node, its operand, or None for a constant.
        output: box of the region to compute.
        channels: C of the output.
        region: of the first input that is one; ``last`` says whether channels are last in the source's output.
        windows: (y, x) windows of a sliding-window node, identity windows otherwise.
        cached: returns the cached rows of the output [H * W + 2, C] (the first call makes them an input of the graph).
        mean_extent: (height, width) of the output's region, the mean over all positions.
        gate: returns the numbers [1, C] of an input that is a frozen gate, None for others.
    """

    emit: Emitter
    node: gs.Node
    inputs: tuple[Operand | None, ...]
    output: Box
    channels: int
    region: Region
    last: bool
    windows: tuple[Window, Window]
    cached: Callable[[], gs.Tensor]
    mean_extent: tuple[float, float]
    gate: Callable[[gs.Tensor], gs.Tensor | None]

    @property
    def operand(self) -> Operand:
        """The first input, which is the data input of every node but a merge."""
        first = self.inputs[0]
        assert first is not None
        return first

    @property
    def value(self) -> Updated:
        """The first input, :meth:`in_place`."""
        return self.in_place(self.operand)

    def in_place(self, operand: Operand) -> Updated:
        """What a node that goes cell by cell reads for its region: as it lies, or anew where a threshold by node leaves less."""
        value = operand.updated
        if value.box == self.output:
            return value
        rows = self.emit("Reshape", self.cells(operand), self.emit.int64([-1, value.channels]))
        return Updated(self.output, value.channels, rows=rows)

    @property
    def cell_by_cell(self) -> bool:
        """Whether an output reads one cell of the first input, in the same place of a region that lies alike."""
        return self.operand.updated.box == self.output and all(window.kernel == window.stride == 1 for window in self.windows)

    def as_typed(self, held: gs.Tensor, value: gs.Tensor) -> gs.Tensor:
        """A region of ``value`` as the operator takes it: truth values are held as zeros and ones."""
        return self.emit("Cast", held, to=TensorProto.BOOL) if value.dtype == np.bool_ else held

    def as_held(self, result: gs.Tensor) -> gs.Tensor:
        """What the operator gave as regions are held."""
        return self.emit("Cast", result, to=TensorProto.FLOAT) if self.node.outputs[0].dtype == np.bool_ else result

    def constant(self, value: gs.Tensor) -> gs.Constant:
        """A constant input of the source node, in the graph under construction."""
        return self.emit.constant(value.values, value.name)

    def attribute(self, name: str, default: object) -> object:
        return self.node.attrs.get(name, default)

    @property
    def mean_reads(self) -> tuple[float, float]:
        """Cells from the first to the last that the windows of a region touch, along y and x, for the mean extent."""
        y, x = (
            (extent - 1) * window.stride + window.reach for extent, window in zip(self.mean_extent, self.windows, strict=True)
        )
        return y, x

    def cells(self, operand: Operand, pad_row: int = ZERO_ROW) -> gs.Variable:
        """Every cell that the windows of the output region touch, padding included: [batch, h, w, C]."""
        y, x = (
            contiguous_reads(self.emit, w, axis) for w, axis in zip(self.windows, (self.output.y, self.output.x), strict=True)
        )
        return operand.read(self.emit, y, x, pad_row, sparse=_sparse(operand, self.mean_reads))

    def maps(self) -> gs.Tensor:
        """Every cell that the windows of the output region touch, channels first: [batch, C, h, w]."""
        value = self.operand.updated
        if not self.cell_by_cell:
            return self.emit("Transpose", self.cells(self.operand), perm=[0, 3, 1, 2])
        if value.maps is not None:
            return value.maps
        rows = value.in_plain_order(self.emit, as_rows(self.emit, value))
        return self.emit("Transpose", in_regions(self.emit, value, rows), perm=[0, 3, 1, 2])

    def patches(self, operand: Operand, pad_row: int = ZERO_ROW) -> gs.Variable:
        """The window of every output cell (im2col): [batch, h, w, kernel h, kernel w, C]."""
        y, x = (window_reads(self.emit, w, axis) for w, axis in zip(self.windows, (self.output.y, self.output.x), strict=True))
        reads = [extent * window.kernel for extent, window in zip(self.mean_extent, self.windows, strict=True)]
        return operand.read(self.emit, y, x, pad_row, sparse=_sparse(operand, reads))

    def changed_patches(self, operand: Operand) -> gs.Variable:
        """What the patch changes in the window of every output cell: [batch, h, w, kernel h, kernel w, C]."""
        y, x = (window_reads(self.emit, w, axis) for w, axis in zip(self.windows, (self.output.y, self.output.x), strict=True))
        return operand.read_changes(self.emit, y, x)

    def tiles(self, tile: Tile) -> tuple[Reads, Reads]:
        """Every input cell of tiles of outputs, along y and x: the index is [cells y, cells x, all tiles]."""
        return tile_reads(self.emit, self.windows, self.output, tile)

    def tile_cells(self, operand: Operand, tile: Tile) -> gs.Variable:
        """Every input cell of tiles of outputs: [cells y, cells x, all tiles, C]."""
        sides = zip(self.mean_extent, self.windows, tile, strict=True)
        reads = [np.ceil(extent / size) * window.input_extent(size) for extent, window, size in sides]
        return operand.read(self.emit, *self.tiles(tile), sparse=_sparse(operand, reads))

    def aligned_rows(self, operand: Operand, tile: Tile | None) -> gs.Tensor:
        """An operand on the output's box, rows ordered by ``tile``: as it is if it lies so, else reordered or read anew."""
        value = operand.updated
        if self.aligned(operand, tile):
            return as_rows(self.emit, value)
        if tile is None and value.box == self.output:
            return value.in_plain_order(self.emit, as_rows(self.emit, value))
        cells = self.cells(operand) if tile is None else self.tile_cells(operand, tile)
        return self.emit("Reshape", cells, self.emit.int64([-1, value.channels]))

    def aligned(self, operand: Operand, tile: Tile | None) -> bool:
        return operand.updated.box == self.output and operand.updated.tile == tile

    def zeros(self, operands: Sequence[Operand], tile: Tile | None) -> bool:
        """Whether in all :meth:`aligned_rows` the rows in front are zeros: rows that are read anew come with zeros there."""
        return all(operand.updated.zeros or not self.aligned(operand, tile) for operand in operands)

    def shared_tile(self) -> Tile | None:
        """The order of rows for a merge: few inputs to read again, few rows that overhang (all that follows computes them)."""
        values = [operand.updated for operand in self.inputs if operand is not None]

        def cost(tile: Tile | None) -> float:
            again = sum(value.channels for value in values if value.box != self.output or value.tile != tile)
            return again + OVERHANG_COST * self.overhang(tile) * self.channels

        return min((None, *(value.tile for value in values if value.box == self.output)), key=cost)

    def overhang(self, tile: Tile | None) -> float:
        """Rows that lie outside of the region, over those inside, for a region of the mean extent."""
        rows = inside = 1.0
        for extent, size in zip(self.mean_extent, tile or (1, 1), strict=True):
            rows, inside = rows * np.ceil(extent / size) * size, inside * extent
        return rows / inside - 1

    def cached_output(self, tile: Tile | None) -> gs.Variable:
        """The node's cached output on the region's box: [rows, C] ordered by ``tile``."""
        return cached_rows(self.emit, self.output, tile, self.cached())

    def computed(
        self,
        *,
        rows: gs.Tensor | None = None,
        maps: gs.Tensor | None = None,
        tile: Tile | None = None,
        cached: gs.Tensor | None = None,
        zeros: bool = False,
        scaled: Scaled | None = None,
    ) -> Updated:
        return Updated(self.output, self.channels, rows, maps, tile, cached, zeros, scaled)


def _sparse(operand: Operand, reads: Sequence[float]) -> bool:
    """Whether the map has more cells than ``reads`` (along y and x) of a batch move when they are copied first."""
    box = operand.updated.box
    return bool(box.y.size * box.x.size > COPIES * TYPICAL_BATCH * np.prod(reads))
