"""The scheduler: puts positions whose regions have similar extents into one batch.

All regions of a batch are computed at the extent of the largest. An extent depends on the patch's distance from the borders and
on its alignment to the strides, so positions are split k-d style along the axis that saves most work, until each part is a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, IntArray

EIGHTH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """The extents of regions by patch position, for each geometry in a model.

    Attributes:
        weights: float64 [geometries], work per cell.
        y: float64 [rows, geometries], height of the region by the patch's row.
        x: float64 [cols, geometries], width of the region by the patch's column.
        first: (y, x) of the first row and column, 0 or below, since a patch may extend beyond the image.
    """

    weights: DoubleArray
    y: DoubleArray
    x: DoubleArray
    first: tuple[int, int]

    @classmethod
    def of(cls, geometries: Sequence[tuple[float, Sequence[int], Sequence[int]]], patch: tuple[int, int]) -> Extents:
        """From (work per cell, heights by row, widths by column) of each geometry, in order of the patch's position."""
        weights, heights, widths = zip(*geometries, strict=True)
        first = 1 - patch[0], 1 - patch[1]
        return cls(np.array(weights, float), np.array(heights, float).T, np.array(widths, float).T, first)

    def work(self, numbers: IntArray) -> float:
        """Work per position of a batch, whose positions less ``first`` are ``numbers``, int64 [N, 2]."""
        y, x = self.y[numbers[:, 0]].max(axis=0), self.x[numbers[:, 1]].max(axis=0)
        return float(self.weights @ (y * x))


def schedule(positions: IntArray, extents: Extents, batch: int) -> list[IntArray]:
    """Splits positions, int64 [N, 2], into batches: arrays of at most ``batch`` indices into ``positions``. Deterministic."""
    if not len(positions):
        return []
    positions = positions - np.array(extents.first)  # row and column numbers in ``extents`` from here on
    mean_y, mean_x = extents.y.mean(axis=0), extents.x.mean(axis=0)
    keys = (extents.y @ (extents.weights * mean_x), extents.x @ (extents.weights * mean_y))
    split = list(_split(positions, np.arange(len(positions)), extents, keys, batch))
    in_order = [np.arange(start, min(start + batch, len(positions))) for start in range(0, len(positions), batch)]
    return min(split, in_order, key=lambda parts: sum(len(part) * extents.work(positions[part]) for part in parts))


def _split(
    positions: IntArray, chosen: IntArray, extents: Extents, keys: tuple[DoubleArray, DoubleArray], batch: int
) -> Iterator[IntArray]:
    """Splits ``chosen`` recursively at the axis and index of least work; of many batches, each side has an eighth or more."""
    count = len(chosen)
    if count <= batch:
        yield chosen
        return
    sizes = np.arange(batch, count, batch)
    sizes = sizes[(sizes >= count // EIGHTH) & (sizes <= count - count // EIGHTH)] if len(sizes) > EIGHTH else sizes
    middle = int(sizes[len(sizes) // 2])
    best, least = (chosen[:middle], chosen[middle:]), np.inf  # what work without bound is split by
    for axis, key in enumerate(keys):
        ordered = chosen[np.lexsort((positions[chosen, axis], key[positions[chosen, axis]]))]
        y, x = extents.y[positions[ordered, 0]], extents.x[positions[ordered, 1]]
        before = (np.maximum.accumulate(y) * np.maximum.accumulate(x)) @ extents.weights
        after = ((np.maximum.accumulate(y[::-1]) * np.maximum.accumulate(x[::-1])) @ extents.weights)[::-1]
        work = sizes * before[sizes - 1] + (count - sizes) * after[sizes]
        number = int(work.argmin())
        if work[number] < least:
            best, least = (ordered[: sizes[number]], ordered[sizes[number] :]), work[number]
    for part in best:
        yield from _split(positions, part, extents, keys, batch)
