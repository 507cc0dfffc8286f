"""Scales and shifts of channels that are put off until a convolution can take them into its weights.

Rows that batch normalisation and arithmetic scale are computed as ever, and known beside that as a factor and an offset of
the rows before. Through a Relu that stays so: relu(a x + b) is a max(x, -b / a) + b where a > 0 and a min(x, -b / a) + b
where a < 0. Only a Gemm asks for that form, which leaves one pass over the activation of three or more (DenseNet reads its
widest activations so, and residual networks that activate before they convolve); nodes that nothing reads are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from kcompiler.passes.emit import Emitter

Numbers = npt.NDArray[np.float64]
NOTHING = 1e-30
"""Factors up to this make a constant of a channel: what it varies by is below all rounding, and nothing is divided by it."""
LARGEST = 1e30
"""Of a bound. Beyond it a channel is not what a network computes with, and float32 might overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """``factor`` * ``rows`` + ``offset``: rows [rows, C], the others [C]."""

    rows: gs.Tensor
    factor: Numbers
    offset: Numbers

    @classmethod
    def plain(cls, rows: gs.Tensor, channels: int) -> Scaled:
        return cls(rows, np.ones(channels), np.zeros(channels))

    def then(self, factor: Numbers | float, offset: Numbers | float) -> Scaled | None:
        """What is scaled and shifted once more, or None where that overflows float32."""
        with np.errstate(invalid="ignore"):  # infinities
            factors, offsets = self.factor * factor, self.offset * factor + offset
        if not all(np.all(abs(numbers) < np.finfo(np.float32).max) for numbers in (factors, offsets)):
            return None
        return Scaled(self.rows, factors, offsets)

    def clipped(self, emit: Emitter) -> Scaled | None:
        """The Relu of it, or None where that cannot be told in float32."""
        varies = abs(self.factor) > NOTHING
        factor = np.where(varies, self.factor, 0.0)
        offset = np.where(varies, self.offset, np.maximum(self.offset, 0.0))
        bounds = -offset / np.where(varies, factor, 1.0)
        if not np.all(abs(bounds) < LARGEST):
            return None
        rows, limits = self.rows, np.finfo(np.float32)
        for operator, bounded, free in (("Max", factor > 0, limits.min), ("Min", factor < 0, limits.max)):
            if bounded.any():
                rows = emit(operator, rows, emit.constant(np.where(bounded, bounds, free).astype(np.float32), "bounds"))
        return Scaled(rows, factor, offset)
