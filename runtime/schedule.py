"""Scheduling: positions whose regions have alike extents share a batch, because a batch is as large as its largest region.

How large a region is depends on how far the patch is from the borders and how it is aligned to the strides, so the grid
is split k-d style along the axis that saves most, until each part is a batch. Along an axis, rows are not in the order of the
image but in one where extents change little, so that those aligned alike meet. A batch need not be full: where those that are
alike are few, it may cost less to go without others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.positions import IntArray

FloatArray = npt.NDArray[np.float64]
EIGHTH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """The extents of regions by the patch's place, for the geometries that occur in a model.

    Attributes:
        weights: float64 [geometries], work a cell.
        y: float64 [origins y, geometries], height of the region for the patch at that row.
        x: float64 [origins x, geometries].
        first: (y, x) of the first origin.
        ranks: int64 [origins y] and [origins x], along a path over which extents change little from one origin to the next.
    """

    weights: FloatArray
    y: FloatArray
    x: FloatArray
    first: tuple[int, int]
    ranks: tuple[IntArray, IntArray]

    @classmethod
    def of(cls, geometries: Sequence[tuple[float, Sequence[int], Sequence[int]]], patch: tuple[int, int]) -> Extents:
        """From (work a cell, heights by row, widths by column) of each geometry, from the first place of the patch on."""
        given, heights, widths = zip(*geometries, strict=True)
        weights, y, x = np.array(given, float), np.array(heights, float).T, np.array(widths, float).T
        ranks = _ranks(y * weights * x.mean(axis=0)), _ranks(x * weights * y.mean(axis=0))
        return cls(weights, y, x, (1 - patch[0], 1 - patch[1]), ranks)

    def work(self, numbers: IntArray) -> float:
        """Of each position of a batch, given as numbers of origins, int64 [N, 2]."""
        y, x = self.y[numbers[:, 0]].max(axis=0), self.x[numbers[:, 1]].max(axis=0)
        return float(self.weights @ (y * x))

    @property
    def mean_work(self) -> float:
        """Of a position, over all places of the patch."""
        return float(self.weights @ (self.y.mean(axis=0) * self.x.mean(axis=0)))


def _ranks(extents: FloatArray) -> IntArray:
    """Of rows of extents (float64 [origins, geometries], weighted): from the smallest on always to the nearest that is left."""
    known, numbers = np.unique(extents, axis=0, return_inverse=True)
    ranks = np.zeros(len(known), np.int64)
    left, at = np.arange(len(known)), int(known.sum(axis=1).argmin())
    for rank in range(len(known)):
        ranks[at] = rank
        left = left[left != at]
        if len(left):
            at = int(left[np.abs(known[left] - known[at]).sum(axis=1).argmin()])
    return ranks[numbers]


def schedule(positions: IntArray, extents: Extents, batch: int, overhead: float = inf) -> list[IntArray]:
    """Indices into ``positions`` (int64 [N, 2]), batch by batch; the same for the same positions in the same order.

    Args:
        batch: positions that one may have.
        overhead: what a batch takes besides, in the work of a mean position: for less than that no further batch is made, and
            by default there are no more than there must be.
    """
    if not len(positions):
        return []
    positions = positions - np.array(extents.first)  # numbers of origins from here on
    cost = overhead * extents.mean_work
    split = list(_split(positions, np.arange(len(positions)), extents, batch, cost))
    given = [np.arange(start, min(start + batch, len(positions))) for start in range(0, len(positions), batch)]

    def total(parts: list[IntArray]) -> float:
        more = len(parts) - len(given)
        return sum(len(part) * extents.work(positions[part]) for part in parts) + (cost * more if more else 0.0)

    return min(split, given, key=total)


def _split(positions: IntArray, chosen: IntArray, extents: Extents, batch: int, cost: float) -> Iterator[IntArray]:
    """Splits along the axis and at the place that leave least work; a further batch adds ``cost``.

    Each side has an eighth of the positions or more, where that is several batches.
    """
    count = len(chosen)
    if count <= batch:
        yield chosen
        return
    least_part = count // EIGHTH if count > EIGHTH * batch else 1
    sizes = np.arange(least_part, count - least_part + 1)
    further = -(-sizes // batch) - (-(count - sizes) // batch) > -(-count // batch)
    best, least = (chosen, chosen), np.inf
    for axis, ranks in enumerate(extents.ranks):
        ordered = chosen[np.lexsort((positions[chosen, axis], ranks[positions[chosen, axis]]))]
        y, x = extents.y[positions[ordered, 0]], extents.x[positions[ordered, 1]]
        before = (np.maximum.accumulate(y) * np.maximum.accumulate(x)) @ extents.weights
        after = ((np.maximum.accumulate(y[::-1]) * np.maximum.accumulate(x[::-1])) @ extents.weights)[::-1]
        work = sizes * before[sizes - 1] + (count - sizes) * after[sizes] + np.where(further, cost, 0.0)
        place = int(work.argmin())
        if work[place] < least:
            best, least = (ordered[: sizes[place]], ordered[sizes[place] :]), work[place]
    for part in best:
        yield from _split(positions, part, extents, batch, cost)
