"""The cost model: the work of a node, and the time that it takes on a machine.

A lowering gives its :class:`Work` for a :class:`Shape`; :class:`Rates` convert work to seconds. The rates model a CPU with wide
vectors: matrix products and convolutions are bound by arithmetic, everything else by memory traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kcompiler.passes import assumed
from kcompiler.passes.lowering.layout import Tile, Transitions
from kcompiler.passes.regions.geometry import Window
from kcompiler.runtime.arrays import IntArray

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The sizes of a node and of its regions, in each batch of a sample of the schedule.

    Attributes:
        channels: of all inputs together.
        outputs: channels of the output.
        group: the attribute of the operator.
        windows: (y, x).
        h, w: int64 [batches], extent of the output region in each batch.
        batch: patch positions in each batch.
        table: elements of the cached feature maps that are read.
        transitions: layout conversions at the inputs and the output.
        samples: input cells that each output cell of a resampling reads, 1 for other nodes.
    """

    channels: int
    outputs: int
    group: int
    windows: tuple[Window, Window]
    h: IntArray
    w: IntArray
    batch: int
    table: int
    transitions: Transitions = field(default_factory=Transitions)
    samples: int = 1

    @property
    def taps(self) -> int:
        return self.windows[0].kernel * self.windows[1].kernel

    @property
    def one_to_one(self) -> bool:
        """Whether the window is 1x1 with stride 1."""
        return self.taps == 1 and all(window.stride == 1 for window in self.windows)

    @property
    def cells(self) -> float:
        """Cells of the output region, the mean over the batches."""
        return float(np.mean(self.h * self.w))

    @property
    def rows(self) -> float:
        """Rows of the output: its cells, and the rows of tiles that overhang the region."""
        tile = self.transitions.tile
        return self.cells if tile is None else self.tiles(tile) * tile[0] * tile[1]

    @property
    def reads(self) -> float:
        """Cells of the receptive field of the region, padding included, the mean over the batches."""
        y, x = self.windows
        return float(np.mean((y.reach + (self.h - 1) * y.stride) * (x.reach + (self.w - 1) * x.stride)))

    @property
    def union(self) -> float:
        """Elements moved to concatenate the updated region with the cached map, or with only the cells read of it."""
        return self._joined(self.channels)

    @property
    def union_of_windows(self) -> float:
        """As :attr:`union`, where the cells read are those of every output cell's window (im2col)."""
        return self._joined(self.channels, self.cells * self.taps)

    def _joined(self, channels: float, cells: float | None = None) -> float:
        """For ``channels`` of the inputs; ``cells`` read, those of :attr:`reads` if None."""
        copied, table = self.reads if cells is None else cells, self.table * channels / self.channels
        cached = assumed.COPIES * copied * channels if self.transitions.copies else table / self.batch
        return 2 * (self.reads * channels + cached)

    def reread(self, channels: int) -> float:
        """Elements moved to gather ``channels`` of the inputs' channels, cell by cell, into the output's row order."""
        return self._joined(channels) + 2 * self.rows * channels if channels else 0.0

    def tiles(self, tile: Tile) -> float:
        """Tiles that cover the output region, the mean over the batches."""
        return float(np.mean(-(-self.h // tile[0]) * -(-self.w // tile[1])))


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a node for one patch position. What a batch does once is divided by the positions in it.

    Attributes:
        products: FLOPs in matrix products.
        convolved: FLOPs in convolutions.
        integer: operations in matrix products of 8-bit integers.
        moved: elements read and written in all passes over activations.
        loaded: elements of weights read; a batch reads them once.
        nodes: operators started; a batch starts them once.
        held: elements alive at once at the peak.
    """

    products: float = 0.0
    convolved: float = 0.0
    integer: float = 0.0
    moved: float = 0.0
    loaded: float = 0.0
    nodes: float = 0.0
    held: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.products + other.products, self.convolved + other.convolved, self.integer + other.integer,
            self.moved + other.moved, self.loaded + other.loaded, self.nodes + other.nodes, max(self.held, other.held),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rates:
    """The throughput of a machine.

    Attributes:
        products, convolved: FLOP/s of matrix products and of convolutions.
        integer: operations/s of matrix products of 8-bit integers.
        moved: bytes/s of passes over activations in main memory, and of loading weights.
        node: seconds to start an operator.
        cached: fraction of the time of a pass that is saved when the activations are in a core's own cache.
    """

    products: float
    convolved: float
    integer: float
    moved: float
    node: float
    cached: float

    def seconds(self, work: Work, batch: int | None = None) -> float:
        """Seconds for one position in a batch of ``batch``; without it, a typical share of the activations is in caches."""
        in_caches = assumed.TYPICAL_SHARE if batch is None else _share_in_caches(FLOAT_BYTES * work.held * batch)
        passes = 1 - self.cached * in_caches
        return (
            work.products / self.products
            + work.convolved / self.convolved
            + work.integer / self.integer
            + FLOAT_BYTES * (work.moved * passes + work.loaded * assumed.READ_ONLY) / self.moved
            + work.nodes * self.node
        )


def copies_reads(cells: float, reads: float, batch: int) -> bool:
    """Whether copying only what a batch reads, ``reads`` cells a position, moves less than the whole cached map of ``cells``."""
    return reads > 0 and cells > assumed.COPIES * batch * reads


def read_again(flops: float, rows: float, depth: float) -> float:
    """Elements that a GEMM of ``flops``, [rows, depth] times [depth, columns], moves beyond reading and writing each once.

    ONNX Runtime blocks by STRIPE columns: each stripe reads all of the left matrix, and reads and writes its partial sums for
    every SLAB of the depth. Traffic that stays in a core's own cache is not counted.
    """
    left, sums = (1 - _share_in_caches(FLOAT_BYTES * numbers) for numbers in (rows * depth, rows * assumed.STRIPE))
    return flops / assumed.STRIPE * (left + max(1 - assumed.SLAB / depth, 0.0) * sums)


def _share_in_caches(size: float) -> float:
    """1 for ``size`` bytes that fit a core's own cache, 0 for what exceeds all caches, linear in the logarithm between."""
    memory, cache = assumed.MEMORY_BYTES, assumed.CACHE_BYTES
    return float(np.clip(np.log2(memory / max(size, 1.0)) / np.log2(memory / cache), 0.0, 1.0))


DEFAULT_RATES = Rates(
    products=assumed.PRODUCTS, convolved=assumed.CONVOLVED, integer=assumed.INTEGER, moved=assumed.MOVED, node=assumed.NODE,
    cached=assumed.CACHED,
)  # fmt: skip
"""A choice depends on the ratios of rates only, which vary less between machines than the rates."""
