"""The comparison of compiled outputs with full inference that compilation, ``check`` and all tests share.

docs/exactness.md defines "exact" and says why. The definition is scale-free: outputs multiplied by a power of ten agree or
disagree as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.exactness.noise import allowed_noise

OUTPUT_SHARE = 2.0**-18
"""Tolerance of an output, relative to the largest magnitude of the head: 32 units in the last place of float32 there."""
MAP_SHARE = 1e-3
"""Tolerance of a map, relative to its range."""
ROUNDING = 4.0
"""A disagreement of up to this many times the measured noise may still be rounding; a larger one is a defect."""

DOUBTFUL = 0.8
"""Share of the tolerance above which noise is measured: errors at positions that are not compared may be larger."""
NOISE_POSITIONS, NOISE_ROUNDS = 8, 2
"""Positions per round at which full inference runs with its sums in other orders. The first round takes those of the largest
errors, since noise differs between positions; the second those of the largest errors that are left, since a map that a ReLU
sets to zero shows noise at few positions only."""

Reordered = Callable[[IntArray], Sequence[FloatArray]]
"""Runs full inference with its sums in several other orders, at the positions with these n indices: returns [n, K] for each
order. Called only where noise decides."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Errors of outputs against full inference.

    Attributes:
        largest_error: largest absolute error over all outputs and positions.
        relative_error: ``largest_error`` over the largest magnitude of any output at any position.
        output_error: largest ratio of an output's error to its tolerance; above 1 disagrees.
        map_error: largest ratio of a map's error to its tolerance; above 1 disagrees.
        noise_error: largest ratio of an error above its tolerance to the noise; infinite where noise was not measured.
        agrees: whether every output and every map is within its tolerance.
        reason: what disagrees; empty if nothing does.
        allowed: float64 [N, K], the tolerance of each output by both conditions.
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
        """Largest ratio of an error, of an output or a map, to its tolerance."""
        return max(self.output_error, self.map_error)

    @property
    def rounding(self) -> bool:
        """Whether all errors are small enough to be rounding."""
        return self.noise_error <= ROUNDING


def worst(comparisons: Mapping[str, Comparison]) -> Comparison:
    """Combines comparisons of several outputs, by name: the largest of each error; agrees if all do."""
    each = list(comparisons.values())
    reasons = [f"{name}: {c.reason}" if len(each) > 1 else c.reason for name, c in comparisons.items() if c.reason]
    return Comparison(
        largest_error=max(c.largest_error for c in each),
        relative_error=max(c.relative_error for c in each),
        output_error=max(c.output_error for c in each),
        map_error=max(c.map_error for c in each),
        noise_error=max((c.noise_error for c in each if not c.agrees), default=np.inf),
        agrees=all(c.agrees for c in each),
        reason="; ".join(reasons),
    )


def compare(outputs: FloatArray, full: FloatArray, reordered: Reordered, passed_on: DoubleArray | float = 0.0) -> Comparison:
    """Compares outputs [N, K] with full inference [N, K] at the same positions.

    Both of two conditions must hold. Outputs: each error is at most OUTPUT_SHARE of the largest magnitude of any output at any
    position. Maps (a column is the map of a class): each error is at most MAP_SHARE of the map's range. Either tolerance is
    raised to the noise of full inference (:func:`noise.allowed_noise`), and ``passed_on`` is added to it.

    Infinities and NaNs must be the same in both, and are left out of the rest.

    Args:
        outputs: outputs of the compiled model.
        full: outputs of full inference.
        reordered: see :data:`Reordered`.
        passed_on: float64 [N, K], the change of these outputs that tolerated errors of the logits can cause (``squashing``).
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
    # a single position makes no map
    map_allowed = MAP_SHARE * np.ptp(full.astype(np.float64), axis=0) if len(full) > 1 else np.full(full.shape[1], np.inf)
    noise_error = np.inf
    shares = _shares(errors, np.minimum(output_allowed, map_allowed) + passed_on).max(axis=1)
    measured = np.zeros(0, np.int64)
    for _ in range(NOISE_ROUNDS):
        doubtful = np.setdiff1d(np.flatnonzero(shares > DOUBTFUL), measured)
        if not len(doubtful):
            break
        measured = np.union1d(measured, doubtful[_largest(shares[doubtful], NOISE_POSITIONS)])
        noise = allowed_noise(full, [np.where(finite[measured], draw, 0) for draw in reordered(measured)], measured)
        allowed = np.maximum(np.minimum(output_allowed, map_allowed), noise) + passed_on
        shares = _shares(errors, allowed).max(axis=1)
        too_large = errors > allowed
        noise_error = float(_shares(np.where(too_large, errors, 0), noise + passed_on).max())
    if len(measured):
        output_allowed, map_allowed = np.maximum(output_allowed, noise), np.maximum(map_allowed, noise)
    output_shares, map_shares = _shares(errors, output_allowed + passed_on), _shares(errors, map_allowed + passed_on)
    reasons = []
    if not output_shares.max(initial=0) <= 1:
        index = np.unravel_index(int(output_shares.argmax()), errors.shape)
        off = f"off by {errors[index]:.3g}, allowed is {errors[index] / output_shares[index]:.3g}"
        reasons.append(
            f"output {index[1]} at position {index[0]} is {outputs[index]!s}, full inference gives {full[index]!s}: {off}"
        )
    if not map_shares.max(initial=0) <= 1:
        index = np.unravel_index(int(map_shares.argmax()), errors.shape)
        off = f"off by {errors[index]:.3g}, allowed is {errors[index] / map_shares[index]:.3g}"
        reasons.append(f"the map of output {index[1]} is {off}")
    largest = float(errors.max(initial=0))
    return Comparison(
        largest, largest / magnitude if magnitude else float(largest > 0), float(output_shares.max(initial=0)),
        float(map_shares.max(initial=0)), noise_error, not reasons, "; ".join(reasons),
        np.minimum(output_allowed, map_allowed) + np.broadcast_to(passed_on, full.shape),
    )  # fmt: skip


def _largest(shares: DoubleArray, count: int) -> IntArray:
    """Indices of the ``count`` largest of ``shares`` [N], ascending; ties are broken at random, since neighbours are similar."""
    drawn = np.random.default_rng(0).permutation(len(shares))
    return np.sort(drawn[np.argsort(-shares[drawn], kind="stable")[:count]])


def _shares(errors: DoubleArray, allowed: DoubleArray) -> DoubleArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(errors > 0, errors / allowed, 0.0)


def incomparable(reason: str) -> Comparison:
    """The comparison of outputs whose error cannot be computed."""
    return Comparison(np.inf, np.inf, np.inf, np.inf, np.inf, False, reason)
