"""The one comparison of compiled outputs with full inference: in compilation, ``check`` and every test.

What "exact" means, and why, is in docs/exactness.md. It has no units: outputs multiplied by a power of ten agree or disagree
as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.exactness.noise import allowed_noise

OUTPUT_SHARE = 2.0**-18
"""What any output may be off, relative to the largest of its head: 32 units in the last place of float32 there."""
MAP_SHARE = 1e-3
"""What a map may be off, relative to its range."""
ROUNDING = 4.0
"""Up to so many times what the order of sums explains a disagreement may be rounding all the same; beyond, something is wrong."""

DOUBTFUL = 0.8
"""Share of the first terms from which on noise is measured: errors at other positions may be larger."""
NOISE_POSITIONS, NOISE_ROUNDS = 8, 2
"""Positions at which full inference runs with other sums: those of the largest errors, since some are noisier than others. Then
those of the largest that are left, since a map that a ReLU cuts off shows noise at few positions only."""

Reordered = Callable[[IntArray], Sequence[FloatArray]]
"""Computes full inference with its sums in other orders, [n, K] each, at positions of n numbers; called only where it decides."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far outputs are from full inference.

    Attributes:
        largest_error: largest absolute difference of any output at any position.
        relative_error: the same over the largest magnitude of any output at any position.
        output_error: largest error of an output over what that output is allowed (above 1 is too much).
        map_error: largest error of a map over what that map is allowed (above 1 is too much).
        noise_error: largest error over what the order of sums explains, of what disagrees; infinite where that was not measured.
        agrees: every output and every map is within its allowance.
        reason: empty if it agrees, otherwise what does not.
        allowed: float64 [N, K], what each output is allowed by both conditions.
    """

    largest_error: float
    relative_error: float
    output_error: float
    map_error: float
    noise_error: float
    agrees: bool
    reason: str
    allowed: DoubleArray | None = field(default=None, repr=False, compare=False)

    @property
    def share(self) -> float:
        """The largest error of an output or map over what that is allowed."""
        return max(self.output_error, self.map_error)

    @property
    def rounding(self) -> bool:
        """Whether the largest error is of the size of rounding."""
        return self.noise_error <= ROUNDING


def worst(comparisons: Mapping[str, Comparison]) -> Comparison:
    """Of several outputs, by name: the largest of each error; they agree if all do."""
    each = list(comparisons.values())
    reasons = [f"{name}: {one.reason}" if len(each) > 1 else one.reason for name, one in comparisons.items() if one.reason]
    return Comparison(
        largest_error=max(one.largest_error for one in each),
        relative_error=max(one.relative_error for one in each),
        output_error=max(one.output_error for one in each),
        map_error=max(one.map_error for one in each),
        noise_error=max((one.noise_error for one in each if not one.agrees), default=np.inf),
        agrees=all(one.agrees for one in each),
        reason="; ".join(reasons),
    )


def compare(outputs: FloatArray, full: FloatArray, reordered: Reordered, passed_on: DoubleArray | float = 0.0) -> Comparison:
    """Compares outputs [N, K] with full inference [N, K] at the same positions.

    Two conditions hold together. Outputs: an error is at most OUTPUT_SHARE of the largest magnitude of any output at any
    position. Maps (a column is the map of one class): the largest error is at most MAP_SHARE of the map's range. Either may be
    exceeded as far as the order of sums explains (:func:`noise.allowed_noise`), and by what is ``passed_on``.

    What is infinite or not a number must be the same in both, and is left out of the rest.

    Args:
        outputs: of the compiled model.
        full: of full inference.
        reordered: see :data:`Reordered`.
        passed_on: float64 [N, K], what errors that are allowed in front of these outputs make of them (``squashing``).
    """
    if outputs.shape != full.shape:
        return incomparable(f"outputs have shape {outputs.shape}, full inference {full.shape}")
    finite = np.isfinite(full)
    same = np.array_equal(np.where(finite, 0, outputs), np.where(finite, 0, full), equal_nan=True)
    if not same or not np.isfinite(outputs[finite]).all():
        return incomparable("outputs are infinite or not numbers where full inference's are not, or the reverse")
    outputs, full = np.where(finite, outputs, 0), np.where(finite, full, 0)
    errors = np.abs(outputs.astype(np.float64) - full)
    magnitude = float(np.abs(full).max(initial=0))
    output_allowed = np.full(full.shape[1], OUTPUT_SHARE * magnitude)
    # one position is no map
    map_allowed = MAP_SHARE * np.ptp(full.astype(np.float64), axis=0) if len(full) > 1 else np.full(full.shape[1], np.inf)
    noise_error = np.inf
    shares = _shares(errors, np.minimum(output_allowed, map_allowed) + passed_on).max(axis=1)
    numbers = np.zeros(0, np.int64)
    for _ in range(NOISE_ROUNDS):
        doubtful = np.setdiff1d(np.flatnonzero(shares > DOUBTFUL), numbers)
        if not len(doubtful):
            break
        numbers = np.union1d(numbers, doubtful[_largest(shares[doubtful], NOISE_POSITIONS)])
        noise = allowed_noise(full, [np.where(finite[numbers], found, 0) for found in reordered(numbers)], numbers)
        allowed = np.maximum(np.minimum(output_allowed, map_allowed), noise) + passed_on
        shares = _shares(errors, allowed).max(axis=1)
        too_large = errors > allowed
        noise_error = float(_shares(np.where(too_large, errors, 0), noise + passed_on).max())
    if len(numbers):
        output_allowed, map_allowed = np.maximum(output_allowed, noise), np.maximum(map_allowed, noise)
    output_shares, map_shares = _shares(errors, output_allowed + passed_on), _shares(errors, map_allowed + passed_on)
    reasons = []
    if not output_shares.max(initial=0) <= 1:
        place = np.unravel_index(int(output_shares.argmax()), errors.shape)
        off = f"off by {errors[place]:.3g}, allowed is {errors[place] / output_shares[place]:.3g}"
        reasons.append(
            f"output {place[1]} at position {place[0]} is {outputs[place]!s}, full inference gives {full[place]!s}: {off}"
        )
    if not map_shares.max(initial=0) <= 1:
        place = np.unravel_index(int(map_shares.argmax()), errors.shape)
        off = f"off by {errors[place]:.3g}, allowed is {errors[place] / map_shares[place]:.3g}"
        reasons.append(f"the map of output {place[1]} is {off}")
    largest = float(errors.max(initial=0))
    return Comparison(
        largest, largest / magnitude if magnitude else float(largest > 0), float(output_shares.max(initial=0)),
        float(map_shares.max(initial=0)), noise_error, not reasons, "; ".join(reasons),
        np.minimum(output_allowed, map_allowed) + np.broadcast_to(passed_on, full.shape),
    )  # fmt: skip


def _largest(shares: DoubleArray, count: int) -> IntArray:
    """Indices of the largest of ``shares`` [N], ascending; of equal ones drawn, since neighbours are alike."""
    drawn = np.random.default_rng(0).permutation(len(shares))
    return np.sort(drawn[np.argsort(-shares[drawn], kind="stable")[:count]])


def _shares(errors: DoubleArray, allowed: DoubleArray) -> DoubleArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(errors > 0, errors / allowed, 0.0)


def incomparable(reason: str) -> Comparison:
    """For what has no error that is a number."""
    return Comparison(np.inf, np.inf, np.inf, np.inf, np.inf, False, reason)
