"""What computing a node takes, and how long that is on a machine.

A lowering says its :class:`Work` for a :class:`Shape`; :class:`Rates` turn work into seconds. The rates are a model of a
CPU with wide vectors: matrix products and convolutions bound by arithmetic, everything else by the bytes it moves.
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
    """A node and the regions it is computed on, batch by batch of a sample of a schedule.

    Attributes:
        channels: of the input; ``outputs`` of the output.
        group: as in the operator.
        windows: (y, x).
        h, w: int64 [batches], extent of the output's region in each batch.
        batch: positions in each.
        table: numbers in the cached maps that are read.
        transitions: between the layouts of what is read and of the output.
        samples: cells that an output of a resampling is made of, 1 for other nodes.
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
        """Whether an output reads one cell, and the next output the next cell."""
        return self.taps == 1 and all(window.stride == 1 for window in self.windows)

    @property
    def cells(self) -> float:
        """Cells of the output's region, the mean over the batches."""
        return float(np.mean(self.h * self.w))

    @property
    def rows(self) -> float:
        """Rows of the output: its cells, and those that tiles overhang."""
        tile = self.transitions.tile
        return self.cells if tile is None else self.tiles(tile) * tile[0] * tile[1]

    @property
    def reads(self) -> float:
        """Cells that the windows of the region touch, padding included."""
        y, x = self.windows
        return float(np.mean((y.reach + (self.h - 1) * y.stride) * (x.reach + (self.w - 1) * x.stride)))

    @property
    def union(self) -> float:
        """Numbers moved to join the updated region and the cached map, or only the cells read of it: both are copied."""
        return self._joined(self.channels)

    def _joined(self, channels: float) -> float:
        read, table = self.reads * channels, self.table * channels / self.channels
        return 2 * (read + (assumed.COPIES * read if joins_reads(table, read, self.batch) else table / self.batch))

    def read_again(self, channels: int) -> float:
        """Numbers moved to read so many of the inputs' channels, cell by cell, into rows of the output's order."""
        return self._joined(channels) + 2 * self.rows * channels if channels else 0.0

    def tiles(self, tile: Tile) -> float:
        """Tiles of outputs that cover the region."""
        return float(np.mean(-(-self.h // tile[0]) * -(-self.w // tile[1])))


@dataclass(frozen=True, slots=True)
class Work:
    """Of one position.

    Attributes:
        products: FLOPs in matrix products.
        convolved: FLOPs in convolutions.
        integer: operations in matrix products of 8-bit integers.
        moved: numbers read and written in all passes over activations.
        loaded: numbers of weights that each batch reads once, shared out over its positions.
        nodes: operators started, shared out likewise.
        held: numbers alive at once at the peak.
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
    """How fast a machine is.

    Attributes:
        products, convolved: FLOP/s of matrix products and of convolutions; ``integer`` of products of 8-bit integers.
        moved: bytes/s of passes over activations that lie in memory, and of loading weights.
        node: seconds that starting an operator takes.
        cached: share of a pass that it saves to have the activations in a core's own cache.
    """

    products: float
    convolved: float
    integer: float
    moved: float
    node: float
    cached: float

    def seconds(self, work: Work, batch: int | None = None) -> float:
        """For a position in a batch of ``batch``, or wherever its activations lie."""
        in_caches = assumed.TYPICAL_SHARE if batch is None else _share_in_caches(FLOAT_BYTES * work.held * batch)
        passes = 1 - self.cached * in_caches
        return (
            work.products / self.products
            + work.convolved / self.convolved
            + work.integer / self.integer
            + FLOAT_BYTES * (work.moved * passes + work.loaded * assumed.READ_ONLY) / self.moved
            + work.nodes * self.node
        )


def joins_reads(numbers: float, reads: float, batch: int) -> bool:
    """Whether a batch copies what it reads of a map of ``numbers`` to stand beside the updated rows, not the whole map."""
    return numbers > assumed.COPIES * batch * reads


def read_again(flops: float, rows: float, depth: float) -> float:
    """Numbers that a matrix product of ``flops``, [rows, depth] times [depth, columns], moves besides reading and writing once.

    ONNX Runtime takes STRIPE columns at a time: for each stripe all of the left matrix is read, and the sums so far are read and
    written for every SLAB of the depth. What of it stays in a core's own cache counts for nothing.
    """
    left, sums = (1 - _share_in_caches(FLOAT_BYTES * numbers) for numbers in (rows * depth, rows * assumed.STRIPE))
    return flops / assumed.STRIPE * (left + max(1 - assumed.SLAB / depth, 0.0) * sums)


def _share_in_caches(size: float) -> float:
    """1 for what a core's own cache holds, 0 for what lies in memory, and by the logarithm between."""
    memory, cache = assumed.MEMORY_BYTES, assumed.CACHE_BYTES
    return float(np.clip(np.log2(memory / max(size, 1.0)) / np.log2(memory / cache), 0.0, 1.0))


DEFAULT_RATES = Rates(
    products=assumed.PRODUCTS, convolved=assumed.CONVOLVED, integer=assumed.INTEGER, moved=assumed.MOVED, node=assumed.NODE,
    cached=assumed.CACHED,
)  # fmt: skip
"""Only ratios matter to a choice, and they change less from machine to machine."""
