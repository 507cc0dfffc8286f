"""The final softmax or sigmoid of a classifier: what an error that its logits are allowed makes of its probabilities.

A probability has no exactness of its own. Multiplying the last layer by ten makes the logits ten times as large, their rounding
too, and the probabilities that much more uncertain. So logits are compared by their own magnitude, and probabilities are allowed
what is passed on by an exact bound: if no logit is off by more than a, the odds of a softmax change by at most exp(2 a).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from kcompiler.runtime.arrays import DoubleArray, FloatArray
from kcompiler.runtime.exactness.noise import STEPS
from kcompiler.runtime.records import Record

Squasher = Literal["Softmax", "LogSoftmax", "Sigmoid"]
NEAREST = 2.0**-25
"""How near to 1 a probability is that float32 shows as 1."""
SUBNORMAL = STEPS * float(np.finfo(np.float32).smallest_subnormal)
"""What a probability is rounded to that is too small for full precision."""


class Squashing(Record):
    """What stands between the logits and the explained output: an operator, and a factor behind it (100 for percent)."""

    operator: Squasher
    factor: Annotated[float, Field(gt=0)] = 1.0

    def passed_on(self, outputs: FloatArray, allowed: DoubleArray) -> DoubleArray:
        """How far ``outputs`` [N, K] may be off where each logit may be off by ``allowed`` [N, K].

        Where softmax is not over all outputs but over some (the classes of each cell), the bound holds as well.
        """
        from scipy.special import expit, log_expit, logit

        others = allowed.max(axis=1, keepdims=True) if self.operator != "Sigmoid" else 0.0
        shift = allowed + others  # of the logarithm of the odds
        found = outputs.astype(np.float64) / self.factor
        probabilities = np.exp(found) if self.operator == "LogSoftmax" else found
        odds = logit(np.clip(probabilities, np.finfo(np.float64).tiny, 1 - NEAREST))
        squash = log_expit if self.operator == "LogSoftmax" else expit
        spread: DoubleArray = np.maximum(squash(odds + shift) - squash(odds), squash(odds) - squash(odds - shift))
        return self.factor * (spread + SUBNORMAL)
