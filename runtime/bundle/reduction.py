"""Reduction of dense outputs to a number per class: class maps (segmentation, depth) or rows of numbers (detection, sequences).

The class axis is kept, all other axes are reduced. The compiled models themselves reduce over all cells, or over a box of the
output's cells. The driver reduces over the cells that the uncovered image assigns to each class, batch by batch, since these
depend on another image than the covered one.

Logits before a final softmax or sigmoid are reduced the same way: the score is, say, the mean logit over the cells, not the logit
of the mean probability. Such a map does not saturate where probabilities do.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray
from kcompiler.runtime.records import Positive, Record

How = Literal["mean", "max", "sum"]
Over = Literal["everything", "box", "class"]


class Reduction(Record):
    """How a dense output is reduced to a number per class.

    Attributes:
        how: the reduction of the cells.
        over: which cells: all, those in ``box``, or those that the uncovered image assigns to each class.
        shape: shape of the output for an image, without the batch axis.
        axis: the class axis in ``shape``.
        box: half-open box along the other axes: the start along each, then the end along each.
        above: threshold of the uncovered output for a cell to belong to the class, if there is a single class; of several
            classes, a cell belongs to the one whose output is largest.
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
        """Numbers in the output for an image."""
        return prod(self.shape)

    @property
    def by_driver(self) -> bool:
        """Whether the models' outputs hold all cells, and the driver reduces them."""
        return self.over == "class"

    def by_class(self, outputs: FloatArray) -> FloatArray:
        """Outputs [..., numbers] as [..., K, cells]."""
        before = outputs.shape[:-1]
        whole = outputs.reshape(*before, *self.shape)
        return np.moveaxis(whole, len(before) + self.axis, len(before)).reshape(*before, self.classes, -1)

    def over_all(self, outputs: FloatArray) -> FloatArray:
        """Reduces outputs [n, numbers] over all cells, or over the box, in double precision: float32 [n, K]."""
        cells = self.by_class(outputs)
        if self.box is not None:
            sides = [size for axis, size in enumerate(self.shape) if axis != self.axis]
            box = tuple(slice(*ends) for ends in zip(self.box[: len(sides)], self.box[len(sides) :], strict=True))
            cells = cells.reshape(*cells.shape[:2], *sides)[:, :, *box].reshape(*cells.shape[:2], -1)
        reduced: FloatArray = getattr(np, self.how)(cells.astype(np.float64), axis=-1).astype(np.float32)
        return reduced

    def mask(self, uncovered: FloatArray) -> BoolArray:
        """The cells of each class, bool [K, cells], from the uncovered image's output [numbers]."""
        cells = self.by_class(uncovered)
        if self.classes == 1:
            return np.asarray(cells > self.above)
        return np.asarray(cells.argmax(axis=0) == np.arange(self.classes)[:, None])

    def apply(self, outputs: FloatArray, mask: BoolArray) -> FloatArray:
        """Reduces outputs [n, numbers per name] over the cells of each class.

        Returns:
            float32 [n, K per name]; NaN for a class without cells.
        """
        cells = self.by_class(outputs.reshape(len(outputs), -1, self.numbers))
        reduced = np.full(cells.shape[:3], np.nan, np.float32)
        for number in np.flatnonzero(mask.any(axis=1)):
            class_cells = cells[:, :, number][..., mask[number]]
            # In single precision numpy's sum depends on the memory layout of the cells, and so on the batch size.
            precise = {} if self.how == "max" else {"dtype": np.float64}
            reduced[:, :, number] = getattr(np, self.how)(class_cells, axis=-1, **precise)
        return reduced.reshape(len(outputs), -1)
