"""What a drawing of a map shows: where the map lies in it, and how opaque and of what colour each of its cells is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kcompiler.runtime.arrays import ByteArray, DoubleArray

SEEN = 10
"""By how much black and white pictures differ where they show: more than what a drawing is rounded by."""


@dataclass(frozen=True, slots=True)
class Painted:
    """A map as it was painted.

    Attributes:
        sides: (height, width) in pixels of the drawing.
        opacity: float64 [H, W], from 0 to 1.
        colour: float64 [H, W, 3], from 0 to 255; of no meaning where nothing was painted.
    """

    sides: tuple[int, int]
    opacity: DoubleArray
    colour: DoubleArray

    @property
    def red(self) -> DoubleArray:
        """How much redder than blue, [H, W]: below zero where it is bluer than red."""
        return self.colour[..., 0] - self.colour[..., 2]


def read_back(draw: Callable[[ByteArray], Image.Image], size: tuple[int, int]) -> Painted:
    """What is painted over a picture [H, W, 3]: the same over black and over white tells opacity and colour of each cell."""
    black, white = (np.asarray(draw(np.full((*size, 3), grey, np.uint8))).astype(np.float64) for grey in (0, 255))
    shown = (white - black).max(axis=-1) > SEEN
    rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
    sides = len(rows), len(columns)
    inside = shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert inside.mean() > 0.9, "the picture shows in one rectangle, but for lines drawn over it"
    middles = [
        pixels[0] + (np.arange(count) + 0.5) * len(pixels) / count for pixels, count in zip((rows, columns), size, strict=True)
    ]
    cells = np.ix_(*(middle.astype(int) for middle in middles))
    opacity = 1 - (white[cells] - black[cells]).mean(axis=-1) / 255
    colour = black[cells] / np.maximum(opacity, 1e-3)[..., None]
    return Painted(sides, opacity, colour)
