"""Channel scales that are deferred until a convolution can fold them into its weights.

Rows that batch normalisation or arithmetic scales are computed as usual, and beside that recorded as a factor and an offset of
earlier rows. A Relu turns the offset into a factor form: relu(a x + b) is a max(x + b / a, 0) where a > 0 and
a min(x + b / a, 0) where a < 0. Only a Gemm reads this form, which leaves two of three to five passes over the activation
(DenseNet reads its widest activations so, and pre-activation residual networks). Nodes without readers are dropped at the end.

The offset is added before the products. Folded into the bias behind them it would save one more pass, but a result near zero
would be the difference of two sums as large as the offsets: channels whose mean is far larger than their deviation lost all
precision of float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.runtime.arrays import BoolArray, DoubleArray

NOTHING = 1e-30
"""A channel whose factor is at most this is treated as constant: its variation is below rounding, and it is no divisor."""
LARGEST = 1e30
"""Largest offset that is added to rows. Networks do not compute with larger ones, and float32 might overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """The affine form ``factor`` * ``rows`` + ``offset``: ``rows`` is [rows, C], ``factor`` and ``offset`` are float64 [C]."""

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
        """Whether only constant channels have an offset, so that a bias behind the product can take it without cancellation."""
        return not np.any(self.offset[self.varies])

    def then(self, factor: DoubleArray | float, offset: DoubleArray | float) -> Scaled | None:
        """This, multiplied by ``factor`` and shifted by ``offset``; None where that overflows float32."""
        with np.errstate(invalid="ignore"):  # infinities
            factors, offsets = self.factor * factor, self.offset * factor + offset
        if not all(np.all(abs(values) < np.finfo(np.float32).max) for values in (factors, offsets)):
            return None
        return Scaled(self.rows, factors, offsets)

    def clipped(self, emit: Emitter) -> Scaled | None:
        """The Relu of this in the same form; None where float32 cannot represent it."""
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
