"""Scheduling: positions whose regions have alike extents share a batch, because a batch is as large as its largest region.

How large a region is depends on how far the patch is from the borders and how it is aligned to the strides, so the grid
is split k-d style along the axis that saves most, until each part is a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, IntArray

EIGHTH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """The extents of regions by the patch's place, for the geometries that occur in a model.

    Attributes:
        weights: float64 [geometries], work a cell.
        y: float64 [origins y, geometries], height of the region for the patch at that row.
        x: float64 [origins x, geometries].
        first: (y, x) of the first origin.
    """

    weights: DoubleArray
    y: DoubleArray
    x: DoubleArray
    first: tuple[int, int]

    @classmethod
    def of(cls, geometries: Sequence[tuple[float, Sequence[int], Sequence[int]]], patch: tuple[int, int]) -> Extents:
        """From (work a cell, heights by row, widths by column) of each geometry, from the first place of the patch on."""
        weights, heights, widths = zip(*geometries, strict=True)
        first = 1 - patch[0], 1 - patch[1]
        return cls(np.array(weights, float), np.array(heights, float).T, np.array(widths, float).T, first)

    def work(self, numbers: IntArray) -> float:
        """Of each position of a batch, given as numbers of origins, int64 [N, 2]."""
        y, x = self.y[numbers[:, 0]].max(axis=0), self.x[numbers[:, 1]].max(axis=0)
        return float(self.weights @ (y * x))


def schedule(positions: IntArray, extents: Extents, batch: int) -> list[IntArray]:
    """Indices into ``positions`` (int64 [N, 2]), batch by batch; the same for the same positions in the same order."""
    if not len(positions):
        return []
    positions = positions - np.array(extents.first)  # numbers of origins from here on
    mean_y, mean_x = extents.y.mean(axis=0), extents.x.mean(axis=0)
    keys = (extents.y @ (extents.weights * mean_x), extents.x @ (extents.weights * mean_y))
    split = list(_split(positions, np.arange(len(positions)), extents, keys, batch))
    given = [np.arange(start, min(start + batch, len(positions))) for start in range(0, len(positions), batch)]
    return min(split, given, key=lambda parts: sum(len(part) * extents.work(positions[part]) for part in parts))


def _split(
    positions: IntArray, chosen: IntArray, extents: Extents, keys: tuple[DoubleArray, DoubleArray], batch: int
) -> Iterator[IntArray]:
    """Splits off whole batches along the axis and at the place that leave least work, an eighth of the positions or more."""
    count = len(chosen)
    if count <= batch:
        yield chosen
        return
    sizes = np.arange(batch, count, batch)
    sizes = sizes[(sizes >= count // EIGHTH) & (sizes <= count - count // EIGHTH)] if len(sizes) > EIGHTH else sizes
    best, least = (chosen, chosen), np.inf
    for axis, key in enumerate(keys):
        ordered = chosen[np.lexsort((positions[chosen, axis], key[positions[chosen, axis]]))]
        y, x = extents.y[positions[ordered, 0]], extents.x[positions[ordered, 1]]
        before = (np.maximum.accumulate(y) * np.maximum.accumulate(x)) @ extents.weights
        after = ((np.maximum.accumulate(y[::-1]) * np.maximum.accumulate(x[::-1])) @ extents.weights)[::-1]
        work = sizes * before[sizes - 1] + (count - sizes) * after[sizes]
        place = int(work.argmin())
        if work[place] < least:
            best, least = (ordered[: sizes[place]], ordered[sizes[place] :]), work[place]
    for part in best:
        yield from _split(positions, part, extents, keys, batch)
