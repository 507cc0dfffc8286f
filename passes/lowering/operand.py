"""Operands and results of lowerings: the updated region of a value, and that region inside its cached feature map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes import assumed
from kcompiler.passes.emission.box import Box
from kcompiler.passes.emission.index import (
    ZERO_ROW,
    RowNumbers,
    cached_index,
    cell_index,
    plain_rows,
    row_index,
    tiled_rows,
    updated_index,
)
from kcompiler.passes.emission.reads import Reads, contiguous_reads, tile_reads
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.layout import Layout, Tile
from kcompiler.passes.lowering.scaled import Scaled
from kcompiler.passes.regions.geometry import Window


@dataclass(frozen=True, slots=True)
class Updated:
    """The recomputed region of a value, for a batch of patch positions, in one of two layouts.

    Attributes:
        box: origin and extent of the region at each position of the batch.
        channels: C.
        rows: [rows, C] in the order given by ``tile``, or None where the region is held as ``maps``.
        maps: [batch, C, h, w], or None.
        tile: (height, width) of the tiles that order the rows; None is row-major, region by region: [batch * h * w, C].
        cached: the cached activation on the same cells in the same row order, where computing the region needed it.
        zeros: whether the leading rows that belong to no region (:attr:`RowNumbers.nothing`) are known to be zeros, as they are
            in rows gathered from the cached activation.
        scaled: ``rows`` as an affine function, per channel, of earlier rows, where that form is known.
    """

    box: Box
    channels: int
    rows: gs.Tensor | None = None
    maps: gs.Tensor | None = None
    tile: Tile | None = None
    cached: gs.Tensor | None = None
    zeros: bool = False
    scaled: Scaled | None = None

    @property
    def layout(self) -> Layout:
        return Layout(self.rows is None, self.tile)

    def row_numbers(self, emit: Emitter) -> RowNumbers:
        """The row of each cell of the region in ``rows``."""
        return plain_rows(emit, self.box) if self.tile is None else tiled_rows(emit, self.box, self.tile)

    def in_plain_order(self, emit: Emitter, rows: gs.Tensor) -> gs.Tensor:
        """``rows``, which are in this region's row order, as row-major rows, region by region."""
        if self.tile is None:
            return rows
        y, x = (contiguous_reads(emit, Window.identity(axis.size), axis) for axis in (self.box.y, self.box.x))
        numbers = self.row_numbers(emit)
        index = updated_index(emit, self.box, numbers, y, x, base=numbers.nothing)
        return emit("Gather", rows, emit("Reshape", index, emit.int64([-1])), axis=0)


def as_rows(emit: Emitter, value: Updated) -> gs.Tensor:
    """The region as rows, in its own row order."""
    if value.rows is not None:
        return value.rows
    return emit("Reshape", emit("Transpose", value.maps, perm=[0, 2, 3, 1]), emit.int64([-1, value.channels]))


def in_regions(emit: Emitter, value: Updated, rows: gs.Tensor) -> gs.Variable:
    """Row-major ``rows`` of the region reshaped to [batch, h, w, C]."""
    sizes = (emit("Cast", axis.extent(emit), to=TensorProto.INT64) for axis in (value.box.y, value.box.x))
    shape = emit("Concat", emit.int64([-1]), *sizes, emit.int64([value.channels]), axis=0)
    return emit("Reshape", rows, shape)


GROUP = 4
"""Micro-batches that are split off together, where one Split would be too wide. Their count is a power of two."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One slice of a batch of positions.

    Attributes:
        number: index of this micro-batch.
        sizes: int64 [count], positions in each micro-batch.
        count: of micro-batches in a batch.
    """

    number: int
    sizes: gs.Tensor
    count: int

    def of(self, emit: Emitter, index: gs.Tensor) -> gs.Tensor:
        """This micro-batch's slice of ``index``, whose first axis is the batch."""
        if self.count <= assumed.WIDEST_SPLIT:
            return emit.several("Split", self.count, index, self.sizes)[self.number]
        groups = self.count // GROUP
        by_group = emit("Reshape", self.sizes, emit.int64([groups, GROUP]))
        group, within = divmod(self.number, GROUP)
        part = emit.several("Split", groups, index, emit("ReduceSum", by_group, emit.int64([1]), keepdims=0))[group]
        return emit.several("Split", GROUP, part, emit("Gather", by_group, emit.int64(group), axis=0))[within]


@dataclass(frozen=True, slots=True)
class Operand:
    """An incremental input of a node: its updated region, and access to the cached feature map around it.

    Attributes:
        updated: the region.
        cached: returns the cached activation as rows [H * W + 2, C]; the first call makes it a graph input.
        part: the micro-batch whose output positions read it; None for the whole batch.
    """

    updated: Updated
    cached: Callable[[], gs.Tensor]
    part: MicroBatch | None = None

    def read(self, emit: Emitter, y: Reads, x: Reads, pad_row: int = ZERO_ROW, *, sparse: bool = False) -> gs.Variable:
        """Gathers cells of the cached map with the updated region pasted in: [*broadcast shape of the reads, C].

        ``sparse`` where a batch reads a small part of the map: then only the cached cells read are gathered and joined to the
        updated rows, not the whole map.
        """
        union, index = self._union(emit, y, x, pad_row, sparse=sparse)
        return emit("Gather", union, index if self.part is None else self.part.of(emit, index), axis=0)

    def _union(self, emit: Emitter, y: Reads, x: Reads, pad_row: int, *, sparse: bool) -> tuple[gs.Variable, gs.Variable]:
        """The union table [rows, C], cached rows in front of the updated ones, and the index of each cell read in it."""
        value, numbers = self.updated, self.updated.row_numbers(emit)
        if not sparse:
            union = emit("Concat", self.cached(), as_rows(emit, value), axis=0)
            return union, row_index(emit, value.box, numbers, y, x, pad_row)
        cached = emit("Reshape", cached_index(emit, value.box, y, x, pad_row), emit.int64([-1]))
        count = emit("Squeeze", emit("Shape", cached))
        updated = updated_index(emit, value.box, numbers, y, x, base=numbers.nothing)
        gathered = emit("Reshape", emit("Range", emit.int64(0), count, emit.int64(1)), emit("Shape", updated))
        index = emit(
            "Max", emit("Cast", gathered, to=TensorProto.INT32), emit("Add", updated, emit("Cast", count, to=TensorProto.INT32))
        )
        return emit("Concat", emit("Gather", self.cached(), cached, axis=0), as_rows(emit, value), axis=0), index

    def cached_rows(self, emit: Emitter) -> gs.Tensor:
        """The cached activation on the cells of the updated rows, in their order."""
        value = self.updated
        return value.cached if value.cached is not None else cached_rows(emit, value.box, value.tile, self.cached())

    def read_changes(self, emit: Emitter, y: Reads, x: Reads) -> gs.Variable:
        """Gathers the change, updated minus cached, of the cells read: zero outside of the region."""
        value = self.updated
        changes, numbers = emit("Sub", as_rows(emit, value), self.cached_rows(emit)), value.row_numbers(emit)
        needs_zeros = not numbers.nothing or not (value.zeros or value.cached is not None)
        if needs_zeros:
            zeros = emit.constant(np.zeros((1, value.channels), np.float32), "nothing")
            changes = emit("Concat", zeros, changes, axis=0)
        index = updated_index(emit, value.box, numbers, y, x, base=numbers.nothing + needs_zeros)
        return emit("Gather", changes, emit("Max", index, emit.int32(0)), axis=0)


def cached_rows(emit: Emitter, box: Box, tile: Tile | None, table: gs.Tensor) -> gs.Variable:
    """The rows of the cached activation ``table`` on the cells of ``box``: [rows, C], in tile order or row-major."""
    if tile is None:
        index = cell_index(emit, box)
    else:
        y, x = tile_reads(emit, (Window.identity(box.y.size), Window.identity(box.x.size)), box, tile)
        index = cached_index(emit, box, y, x, ZERO_ROW)
    return emit("Gather", table, emit("Reshape", index, emit.int64([-1])), axis=0)
