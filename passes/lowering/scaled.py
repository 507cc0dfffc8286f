"""Scales of channels that are put off until a convolution can take them into its weights.

Rows that batch normalisation and arithmetic scale are computed as ever, and known beside that as a factor and an offset of
the rows before. A Relu makes factors of that: relu(a x + b) is a max(x + b / a, 0) where a > 0 and a min(x + b / a, 0) where
a < 0. Only a Gemm asks for that form, which leaves two passes over the activation of three to five (DenseNet reads its widest
activations so, and residual networks that activate before they convolve); nodes that nothing reads are dropped.

The offset stays in front of the products. Joined to the bias behind them it would save one pass more, but what comes out near
zero would be the difference of two sums as large as the offsets: nothing of float32's precision was left of channels whose
mean is far more than their deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.runtime.arrays import BoolArray, DoubleArray

NOTHING = 1e-30
"""Factors up to this make a constant of a channel: what it varies by is below all rounding, and nothing is divided by it."""
LARGEST = 1e30
"""Of what is added to rows. Beyond it a channel is not what a network computes with, and float32 might overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """``factor`` * ``rows`` + ``offset``: rows [rows, C], the others [C]."""

    rows: gs.Tensor
    factor: DoubleArray
    offset: DoubleArray

    @classmethod
    def plain(cls, rows: gs.Tensor, channels: int) -> Scaled:
        return cls(rows, np.ones(channels), np.zeros(channels))

    @property
    def varies(self) -> BoolArray:
        """Which channels are not constants: bool [C]."""
        return np.asarray(abs(self.factor) > NOTHING)

    @property
    def centred(self) -> bool:
        """Whether only constants have an offset, so that it can be added behind a product without a loss of precision."""
        return not np.any(self.offset[self.varies])

    def then(self, factor: DoubleArray | float, offset: DoubleArray | float) -> Scaled | None:
        """What is scaled and shifted once more, or None where that overflows float32."""
        with np.errstate(invalid="ignore"):  # infinities
            factors, offsets = self.factor * factor, self.offset * factor + offset
        if not all(np.all(abs(numbers) < np.finfo(np.float32).max) for numbers in (factors, offsets)):
            return None
        return Scaled(self.rows, factors, offsets)

    def clipped(self, emit: Emitter) -> Scaled | None:
        """The Relu of it, or None where that cannot be told in float32."""
        shift = np.where(self.varies, self.offset, 0.0) / np.where(self.varies, self.factor, 1.0)
        if not np.all(abs(shift) < LARGEST):
            return None
        rows = emit("Add", self.rows, _row(emit, shift)) if shift.any() else self.rows
        negative = self.varies & (self.factor < 0)
        if not negative.any():
            rows = emit("Relu", rows)
        else:
            if not negative.all():
                rows = emit("Max", rows, _row(emit, np.where(negative, -np.inf, 0.0)))
            rows = emit("Min", rows, _row(emit, np.where(negative, 0.0, np.inf)))
        constants = np.where(self.varies, 0.0, np.maximum(self.offset, 0.0))
        return Scaled(rows, np.where(self.varies, self.factor, 0.0), constants)


def _row(emit: Emitter, numbers: DoubleArray) -> gs.Constant:
    return emit.constant(numbers.astype(np.float32), "channels")
