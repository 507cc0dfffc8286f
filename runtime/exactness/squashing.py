"""The final softmax or sigmoid of a classifier: how a tolerated error of the logits propagates to the probabilities.

The tolerance of a probability follows from that of the logits. Multiplying the last layer by ten multiplies the logits and their
rounding by ten, and makes the probabilities more uncertain. So logits are compared relative to their own magnitude, and
probabilities get a tolerance by an exact bound: if no logit's error exceeds a, the odds of a softmax change by at most exp(2 a).
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
"""Largest distance from 1 of a probability that float32 rounds to 1."""
SUBNORMAL = STEPS * float(np.finfo(np.float32).smallest_subnormal)
"""Tolerance for the rounding of subnormal probabilities."""


class Squashing(Record):
    """What lies between the logits and the explained output.

    Attributes:
        operator: type of the operator.
        factor: factor applied after it (100 for percent).
    """

    operator: Squasher
    factor: Annotated[float, Field(gt=0)] = 1.0

    def passed_on(self, outputs: FloatArray, allowed: DoubleArray) -> DoubleArray:
        """Tolerance [N, K] of ``outputs`` [N, K] where the tolerance of the logits is ``allowed`` [N, K].

        The bound also holds for a softmax over a part of the outputs (the classes of each cell).
        """
        from scipy.special import expit, log_expit, logit

        others = allowed.max(axis=1, keepdims=True) if self.operator != "Sigmoid" else 0.0
        shift = allowed + others  # largest change of the log odds
        squashed = outputs.astype(np.float64) / self.factor
        probabilities = np.exp(squashed) if self.operator == "LogSoftmax" else squashed
        log_odds = logit(np.clip(probabilities, np.finfo(np.float64).tiny, 1 - NEAREST))
        squash = log_expit if self.operator == "LogSoftmax" else expit
        spread: DoubleArray = np.maximum(squash(log_odds + shift) - squash(log_odds), squash(log_odds) - squash(log_odds - shift))
        return self.factor * (spread + SUBNORMAL)
