"""Reducing dense outputs to one number a class: maps of classes (segmentation, depth), or rows of numbers (detection, sequences).

The class axis is kept, all others are reduced. Over everything, or over a box of the output's own cells, the compiled models do
it themselves. Over the cells that the uncovered image gives each class the driver does, batch by batch: which cells those are
follows from another image than the one that is evaluated.

Logits behind a final softmax or sigmoid are reduced alike: their number is the mean of logits over the cells, say, not the logit
of the mean probability. Such a map does not saturate where probabilities do, which is what logits are for.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray
from kcompiler.runtime.records import Positive, Record

"""Which cells count for each class: bool [K, cells]."""
How = Literal["mean", "max", "sum"]
Over = Literal["everything", "box", "class"]


class Reduction(Record):
    """What becomes of a dense output.

    Attributes:
        how: cells become one number.
        over: all cells; a box of them; or those of each class, by the uncovered image.
        shape: of the output, for one image.
        axis: of the classes in ``shape``.
        box: half-open, along the other axes: where it begins along each, then where it ends along each.
        above: what the uncovered output is above in the cells of a class, where that is the only one; with several, a cell is
            of the class whose output is largest.
    """

    how: How
    over: Over
    shape: tuple[Positive, ...]
    axis: int
    box: tuple[int, ...] | None = None
    above: float = 0.0

    @property
    def classes(self) -> int:
        return self.shape[self.axis]

    @property
    def numbers(self) -> int:
        """Of the output, for one image."""
        return prod(self.shape)

    @property
    def by_driver(self) -> bool:
        """Whether the models put out all cells, and the driver reduces them."""
        return self.over == "class"

    def by_class(self, outputs: FloatArray) -> FloatArray:
        """Outputs [..., numbers] as [..., K, cells]."""
        before = outputs.shape[:-1]
        whole = outputs.reshape(*before, *self.shape)
        return np.moveaxis(whole, len(before) + self.axis, len(before)).reshape(*before, self.classes, -1)

    def over_all(self, outputs: FloatArray) -> FloatArray:
        """Outputs [n, numbers] reduced over everything, or over the box: float32 [n, K], by sums in double precision."""
        cells = self.by_class(outputs)
        if self.box is not None:
            sides = [size for place, size in enumerate(self.shape) if place != self.axis]
            part = tuple(slice(*ends) for ends in zip(self.box[: len(sides)], self.box[len(sides) :], strict=True))
            cells = cells.reshape(*cells.shape[:2], *sides)[:, :, *part].reshape(*cells.shape[:2], -1)
        reduced: FloatArray = getattr(np, self.how)(cells.astype(np.float64), axis=-1).astype(np.float32)
        return reduced

    def mask(self, uncovered: FloatArray) -> BoolArray:
        """The cells of each class by the output [numbers] of the uncovered image."""
        cells = self.by_class(uncovered)
        if self.classes == 1:
            return np.asarray(cells > self.above)
        return np.asarray(cells.argmax(axis=0) == np.arange(self.classes)[:, None])

    def apply(self, outputs: FloatArray, mask: BoolArray) -> FloatArray:
        """Outputs [n, numbers a name] reduced over the cells of each class: float32 [n, K a name], NaN where a class has none."""
        cells = self.by_class(outputs.reshape(len(outputs), -1, self.numbers))
        reduced = np.full(cells.shape[:3], np.nan, np.float32)
        for number in np.flatnonzero(mask.any(axis=1)):
            of_class = cells[:, :, number][..., mask[number]]
            # In single precision numpy's sum would depend on how the cells lie in memory, and so on the size of the batch.
            precise = {} if self.how == "max" else {"dtype": np.float64}
            reduced[:, :, number] = getattr(np, self.how)(of_class, axis=-1, **precise)
        return reduced.reshape(len(outputs), -1)
