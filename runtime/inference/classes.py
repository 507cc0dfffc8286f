"""Batches of a few shapes: each has the extents of a class of positions, and one of few sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcompiler.runtime.arrays import BoolArray, DoubleArray, IntArray
from kcompiler.runtime.bundle.variant import ExtentClass
from kcompiler.runtime.inference.schedule import Extents

LEAST = 64
"""Positions that are worth a batch of their own in the extents of their class; fewer take those of a larger class."""
SIZES = 8
"""Sizes of batches from a power of two to the next; a batch is filled up to one. Up to twice this, every size occurs."""


class Classes:
    """The classes of extents of a variant, and the positions that belong to each."""

    def __init__(self, classes: Sequence[ExtentClass], extents: Extents, batch: int = LEAST) -> None:
        """For ``classes``, the last of which covers all positions, the extents of the variant's regions, and the batch size."""
        self.classes, self._extents = tuple(classes), extents
        self.least = min(LEAST, batch)
        """Fewer positions take the last class."""
        first_y, first_x = extents.first
        y = np.stack([extents.y[np.array(one.rows) - first_y].max(axis=0) for one in classes])
        x = np.stack([extents.x[np.array(one.columns) - first_x].max(axis=0) for one in classes])
        self.work: DoubleArray = (y * x) @ extents.weights
        """Work per position of each class, in arbitrary units."""
        self._covers_row: BoolArray = np.all(extents.y[:, None] <= y, axis=2)
        self._covers_column: BoolArray = np.all(extents.x[:, None] <= x, axis=2)

    def covering(self, positions: IntArray) -> BoolArray:
        """Whether each class has the extents that each position, int64 [N, 2], needs: bool [N, classes]."""
        numbers = positions - np.array(self._extents.first)
        covers: BoolArray = self._covers_row[numbers[:, 0]] & self._covers_column[numbers[:, 1]]
        return covers

    def cheapest(self, covers: BoolArray) -> IntArray:
        """The class of least work of those that cover: int64 [N] of bool [N, classes]."""
        return np.asarray(np.where(covers, self.work, np.inf).argmin(axis=1))

    def of_batch(self, positions: IntArray) -> int:
        """Number of the class of least work that covers all ``positions``; the last class for few of them.

        Few positions, as a map is refined, have many sizes: those of larger batches, which recur, are not to alternate with them.
        """
        if len(positions) < self.least:
            return len(self.classes) - 1
        return int(self.cheapest(np.all(self.covering(positions), axis=0, keepdims=True))[0])

    def batches(self, positions: IntArray, size: int) -> list[IntArray]:
        """Splits positions, int64 [N, 2], into batches of one class each: arrays of at most ``size`` indices. Deterministic."""
        chosen = self._assigned(self.covering(positions), min(self.least, size))
        parts = [np.flatnonzero(chosen == number) for number in range(len(self.classes))]
        return [piece for part in parts if len(part) for piece in np.array_split(part, -(-len(part) // size))]

    def _assigned(self, covers: BoolArray, least: int) -> IntArray:
        """The class of each position, int64 [N], of bool [N, classes]: the cheapest, or a larger one where few have that."""
        chosen = self.cheapest(covers)
        while True:
            counts = np.bincount(chosen, minlength=len(self.classes))
            occurring = counts > 0
            occurring[-1] = True  # covers all positions
            few = [number for number in np.argsort(counts, kind="stable") if 0 < counts[number] < least]
            joined = {number: covers[chosen == number].all(axis=0) & occurring for number in few}
            number = next((number for number in few if joined[number].sum() > 1), None)
            if number is None or counts.max() == len(chosen):
                return chosen
            joined[number][number] = False
            chosen[chosen == number] = self.cheapest(joined[number][None])[0]


def filled_up(count: int) -> int:
    """The size of the batch that ``count`` positions are filled up to: at most an eighth more."""
    step = 1 << max(0, (count - 1).bit_length() - SIZES.bit_length())
    return -(-count // step) * step
