"""What computing a node takes, and how long that is on a machine.

A lowering says its :class:`Work` for a :class:`Shape`; :class:`Rates` turn work into seconds. The rates are a model of a
CPU with wide vectors: matrix products and convolutions bound by arithmetic, everything else by the bytes it moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kcompiler.passes.regions.geometry import Window
from kcompiler.runtime.arrays import IntArray

FLOAT_BYTES = 4
CACHE_BYTES = 1 << 20
"""Of a core: level 2 of current server processors has 1 or 2 MiB."""
MEMORY_BYTES = 16 * CACHE_BYTES
"""What a core's share of all caches does not hold."""
COPIES = 2.0
"""Passes over the cells read that it takes more to copy them before the updated rows are joined on."""
STRIPE, SLAB = 128, 256
"""Columns and depth that a matrix product takes at a time. A 1x1 convolution in the blocked layout, both reorders included, takes
0.69 to 0.98 of a Gemm's time at depths of 1024 and 2048, 0.94 to 1.07 at 256 (784 rows or more, 128 columns or more). Predicted:
0.80 to 0.99, and 0.94 to 1.14."""


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
        samples: cells that an output of a resampling is made of, 1 for other nodes.
        summed: whether the output is only summed over its cells.
    """

    channels: int
    outputs: int
    group: int
    windows: tuple[Window, Window]
    h: IntArray
    w: IntArray
    batch: int
    table: int
    samples: int = 1
    summed: bool = False

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
    def reads(self) -> float:
        """Cells that the windows of the region touch, padding included."""
        y, x = self.windows
        return float(np.mean((y.reach + (self.h - 1) * y.stride) * (x.reach + (self.w - 1) * x.stride)))

    @property
    def union(self) -> float:
        """Numbers moved to join the updated region and the cached map, or only the cells read of it: both are copied."""
        read = self.reads * self.channels
        return 2 * (read + (COPIES * read if joins_reads(self.table, read, self.batch) else self.table / self.batch))

    def tiles(self, tile: tuple[int, int]) -> float:
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
        in_caches = TYPICAL_SHARE if batch is None else _share_in_caches(FLOAT_BYTES * work.held * batch)
        passes = 1 - self.cached * in_caches
        return (
            work.products / self.products
            + work.convolved / self.convolved
            + work.integer / self.integer
            + FLOAT_BYTES * (work.moved * passes + work.loaded * READ_ONLY) / self.moved
            + work.nodes * self.node
        )


def joins_reads(numbers: float, reads: float, batch: int) -> bool:
    """Whether a batch copies what it reads of a map of ``numbers`` to stand beside the updated rows, not the whole map."""
    return numbers > COPIES * batch * reads


def read_again(flops: float, rows: float, depth: float) -> float:
    """Numbers that a matrix product of ``flops``, [rows, depth] times [depth, columns], moves besides reading and writing once.

    ONNX Runtime takes STRIPE columns at a time: for each stripe all of the left matrix is read, and the sums so far are read and
    written for every SLAB of the depth. What of it stays in a core's own cache counts for nothing.
    """
    left, sums = (1 - _share_in_caches(FLOAT_BYTES * numbers) for numbers in (rows * depth, rows * STRIPE))
    return flops / STRIPE * (left + max(1 - SLAB / depth, 0.0) * sums)


def _share_in_caches(size: float) -> float:
    """1 for what a core's own cache holds, 0 for what lies in memory, and by the logarithm between."""
    return float(np.clip(np.log2(MEMORY_BYTES / max(size, 1.0)) / np.log2(MEMORY_BYTES / CACHE_BYTES), 0.0, 1.0))


TYPICAL_SHARE = 0.5
"""Of what passes read and write, in caches."""
READ_ONLY = 0.75
"""Share of the time of a pass, of which half is writing, that reading as much takes."""
DEFAULT_RATES = Rates(products=140e9, convolved=140e9, integer=400e9, moved=15e9, node=6e-6, cached=0.5)
"""Two cores, ONNX Runtime 1.31. Only ratios matter to a choice, and they change less from machine to machine. With ``cached``,
predictions follow what batches of 4, 8 and 32 take, relative to 16, within 6% (rms over 12 networks); without, within 9%, and
every larger batch looked better."""
