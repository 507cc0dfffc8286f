"""The one comparison of compiled outputs with full inference: in compilation, ``check`` and every test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.images import FloatArray

RTOL = 1e-4
ATOL = 1e-5
MAP_SHARE = 1e-3
ROUNDINGS = 4
"""Steps of float32 by which two sums of the same numbers in another order commonly differ, even where few positions show it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far outputs are from full inference.

    Attributes:
        largest_error: largest absolute difference of any output at any position.
        output_error: largest error of an output over what that output is allowed (above 1 is too much).
        map_error: largest error of a map over what that map is allowed (above 1 is too much).
        agrees: every output within RTOL and ATOL, and every map within its allowance.
        reason: empty if it agrees, otherwise what does not.
    """

    largest_error: float
    output_error: float
    map_error: float
    agrees: bool
    reason: str


def worst(comparisons: Mapping[str, Comparison]) -> Comparison:
    """Of several outputs, by name: the largest of each error; they agree if all do."""
    each = list(comparisons.values())
    reasons = [f"{name}: {one.reason}" if len(each) > 1 else one.reason for name, one in comparisons.items() if one.reason]
    return Comparison(
        largest_error=max(one.largest_error for one in each),
        output_error=max(one.output_error for one in each),
        map_error=max(one.map_error for one in each),
        agrees=all(one.agrees for one in each),
        reason="; ".join(reasons),
    )


def compare(outputs: FloatArray, full: FloatArray, unoptimised: Callable[[], FloatArray]) -> Comparison:
    """Compares outputs [N, K] with full inference [N, K] at the same positions.

    Two conditions hold together. Outputs: |difference| <= ATOL + RTOL * |full|. Maps (a column is the map of one class):
    the largest error is at most MAP_SHARE of the map's range or, where that is less than float32 can tell, twice the
    noise of full inference itself: the difference it makes to turn ONNX Runtime's optimisations off. A column's noise is
    the largest found in it, or, since few positions may meet little of it, the lesser of the largest absolute noise of any
    column and the median column's relative noise; and never less than four steps of float32 at that magnitude.

    What is infinite or not a number must be the same in both, and is left out of the rest.

    Args:
        outputs: of the compiled model.
        full: of full inference.
        unoptimised: computes full inference without optimisations; called only where it decides.
    """
    if outputs.shape != full.shape:
        return Comparison(np.inf, np.inf, np.inf, False, f"outputs have shape {outputs.shape}, full inference {full.shape}")
    finite = np.isfinite(full)
    if (
        not np.array_equal(np.where(finite, 0, outputs), np.where(finite, 0, full), equal_nan=True)
        or not np.isfinite(outputs[finite]).all()
    ):
        return Comparison(
            np.inf, np.inf, np.inf, False, "outputs are infinite or not numbers where full inference's are not, or the reverse"
        )
    outputs, full = np.where(finite, outputs, 0), np.where(finite, full, 0)
    difference = np.abs(outputs.astype(np.float64) - full)
    excess = difference / (ATOL + RTOL * np.abs(full).astype(np.float64))
    errors = difference.max(axis=0)
    allowed = MAP_SHARE * np.ptp(full.astype(np.float64), axis=0)
    if len(full) == 1:  # one position is no map
        allowed = np.full_like(allowed, np.inf)
    elif (errors > allowed).any():
        allowed = np.maximum(allowed, 2 * _noise(full, np.where(finite, unoptimised(), 0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(errors > 0, errors / allowed, 0.0)
    worst = float(shares.max())
    reasons = []
    if excess.max() > 1:
        place = np.unravel_index(int(excess.argmax()), excess.shape)
        reasons.append(f"output {place[1]} at position {place[0]} is {outputs[place]!s}, full inference gives {full[place]!s}")
    if worst > 1:
        column = int(shares.argmax())
        reasons.append(f"the map of output {column} is off by {errors[column]:.3g}, allowed is {allowed[column]:.3g}")
    return Comparison(float(difference.max()), float(excess.max()), worst, not reasons, "; ".join(reasons))


def _noise(full: FloatArray, unoptimised: FloatArray) -> FloatArray:
    """Per column, what float32 leaves undecided, [K]."""
    noise = np.abs(full.astype(np.float64) - unoptimised).max(axis=0)
    magnitude = np.abs(full).max(axis=0)
    relative = float(np.median(noise[magnitude > 0] / magnitude[magnitude > 0])) if magnitude.any() else 0.0
    pooled = np.minimum(noise.max(initial=0.0), relative * magnitude)
    result: FloatArray = np.maximum(np.maximum(noise, pooled), ROUNDINGS * np.spacing(magnitude))
    return result
