"""The site of a lowering: one incremental node, its operands, and the reads that gather them for the output region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emission.box import Box
from kcompiler.passes.emission.index import ZERO_ROW
from kcompiler.passes.emission.reads import Reads, contiguous_reads, tile_reads, window_reads
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.layout import Layout, Surroundings, Tile
from kcompiler.passes.lowering.operand import Operand, Updated, as_rows, cached_rows, in_regions
from kcompiler.passes.lowering.scaled import Scaled

WINDOW_ATTRIBUTES = {"kernel_shape": "kernel", "strides": "stride", "dilations": "dilation"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site(Surroundings):
    """One incremental node to lower.

    Attributes:
        emit: the graph under construction.
        inputs: per input of the node, its operand, or None for a constant.
        output: box of the region to compute.
        layout: of the output region, chosen before emission.
        copies: whether only the cached cells that are read are copied and joined to a region, chosen before emission.
        cached: returns the cached activation of the output as rows [H * W + 2, C]; the first call makes it a graph input.
        gate: returns the values [1, C] of an input that is a frozen gate, None for any other input.
    """

    emit: Emitter
    inputs: tuple[Operand | None, ...]
    output: Box
    layout: Layout
    copies: bool
    cached: Callable[[], gs.Tensor]
    gate: Callable[[gs.Tensor], gs.Tensor | None]

    @property
    def operand(self) -> Operand:
        """The first input: the data input of every operator except merges."""
        first = self.inputs[0]
        assert first is not None
        return first

    @property
    def value(self) -> Updated:
        """The region of the first input, :meth:`brought_in_place`."""
        return self.brought_in_place(self.operand)

    def brought_in_place(self, operand: Operand) -> Updated:
        """The input region of a pointwise node: as held, or gathered on the output's box where a node threshold shrank it."""
        value = operand.updated
        if value.box == self.output:
            return value
        rows = self.emit("Reshape", self.cells(operand), self.emit.int64([-1, value.channels]))
        return Updated(self.output, value.channels, rows=rows)

    def as_typed(self, held: gs.Tensor, value: gs.Tensor) -> gs.Tensor:
        """A region of ``value`` in the type that the operator takes: booleans are held as float32 zeros and ones."""
        return self.emit("Cast", held, to=TensorProto.BOOL) if value.dtype == np.bool_ else held

    def as_held(self, result: gs.Tensor) -> gs.Tensor:
        """The operator's result in the type that regions are held in: booleans as float32."""
        return self.emit("Cast", result, to=TensorProto.FLOAT) if self.node.outputs[0].dtype == np.bool_ else result

    def constant(self, value: gs.Tensor) -> gs.Constant:
        """A constant input of the source node, as an initializer of the graph under construction."""
        return self.emit.constant(value.values, value.name)

    def cells(self, operand: Operand, pad_row: int = ZERO_ROW) -> gs.Variable:
        """The receptive field of the output region as one box, padding included: [batch, h, w, C]."""
        y, x = (
            contiguous_reads(self.emit, w, axis) for w, axis in zip(self.windows, (self.output.y, self.output.x), strict=True)
        )
        return operand.read(self.emit, y, x, pad_row, sparse=self.copies)

    def maps(self) -> gs.Tensor:
        """The receptive field of the output region as one box, padding included, channels first: [batch, C, h, w]."""
        value = self.operand.updated
        if not self.cell_by_cell:
            return self.emit("Transpose", self.cells(self.operand), perm=[0, 3, 1, 2])
        if value.maps is not None:
            return value.maps
        rows = value.in_plain_order(self.emit, as_rows(self.emit, value))
        return self.emit("Transpose", in_regions(self.emit, value, rows), perm=[0, 3, 1, 2])

    def patches(self, operand: Operand, pad_row: int = ZERO_ROW) -> gs.Variable:
        """im2col: the window of every output cell, [batch, h, w, kernel h, kernel w, C]."""
        y, x = (window_reads(self.emit, w, axis) for w, axis in zip(self.windows, (self.output.y, self.output.x), strict=True))
        return operand.read(self.emit, y, x, pad_row, sparse=self.copies)

    def changed_patches(self, operand: Operand) -> gs.Variable:
        """im2col of the change, updated minus cached: [batch, h, w, kernel h, kernel w, C]."""
        y, x = (window_reads(self.emit, w, axis) for w, axis in zip(self.windows, (self.output.y, self.output.x), strict=True))
        return operand.read_changes(self.emit, y, x)

    @property
    def unpadded(self) -> dict[str, Any]:
        """Attributes of the node's convolution or pool with zero ``pads``: gathered regions contain the padding already."""
        windows = {name: [getattr(window, field) for window in self.windows] for name, field in WINDOW_ATTRIBUTES.items()}
        return {**windows, "pads": [0, 0, 0, 0]}

    @property
    def tile(self) -> Tile:
        """The tile of the output's layout. Only for lowerings whose rows are in tile order."""
        assert self.layout.tile is not None
        return self.layout.tile

    def tiles(self) -> tuple[Reads, Reads]:
        """Reads, along y and x, of every input cell of the output tiles: the index is [cells y, cells x, all tiles]."""
        return tile_reads(self.emit, self.windows, self.output, self.tile)

    def tile_cells(self, operand: Operand) -> gs.Variable:
        """Every input cell of the output tiles, gathered: [cells y, cells x, all tiles, C]."""
        return operand.read(self.emit, *self.tiles(), sparse=self.copies)

    def aligned_rows(self, operand: Operand) -> gs.Tensor:
        """An operand's rows on the output's box in the output's row order: as held if they match, else reordered or gathered."""
        value = operand.updated
        if self._matches_output(operand):
            return as_rows(self.emit, value)
        if self.layout.tile is None and value.box == self.output:
            return value.in_plain_order(self.emit, as_rows(self.emit, value))
        cells = self.cells(operand) if self.layout.tile is None else self.tile_cells(operand)
        return self.emit("Reshape", cells, self.emit.int64([-1, value.channels]))

    def _matches_output(self, operand: Operand) -> bool:
        return operand.updated.box == self.output and operand.updated.tile == self.layout.tile

    def zeros(self, operands: Sequence[Operand]) -> bool:
        """Whether the leading rows of all :meth:`aligned_rows` are zeros (:attr:`Updated.zeros`); gathered rows have them."""
        return all(operand.updated.zeros or not self._matches_output(operand) for operand in operands)

    def cached_output(self) -> gs.Variable:
        """The node's cached output on the region's box: [rows, C] in the output's row order."""
        return cached_rows(self.emit, self.output, self.layout.tile, self.cached())

    def computed(
        self,
        *,
        rows: gs.Tensor | None = None,
        maps: gs.Tensor | None = None,
        cached: gs.Tensor | None = None,
        zeros: bool = False,
        scaled: Scaled | None = None,
    ) -> Updated:
        """The output region from its tensor: exactly one of ``rows`` and ``maps``, as its layout requires."""
        assert (rows is None) == self.layout.maps, f"{self.node.name} is laid out as {self.layout}"
        return Updated(self.output, self.channels, rows, maps, self.layout.tile, cached, zeros, scaled)
