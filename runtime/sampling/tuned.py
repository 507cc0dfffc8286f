"""Using tuned plans: which one serves, and whether its promise can be trusted on the image at hand."""

from __future__ import annotations

import math

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.bundle.plans import Tuned
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inputs.fills import PatchFill
from kcompiler.runtime.sampling.exploration import Exploration

SPOTS = 12
"""Positions of a spot check."""
SPOT_SLACK = 1.25
"""An image is unlike the calibration images where its spot error is this many times the largest of theirs."""
SATURATED = 0.01
"""A probability this close to 0 or 1 at all positions is saturated."""


Description = tuple[float, ...] | str | None
"""Of a fill, see :class:`Tuned`."""


def find_tuned(manifest: Manifest, quality: object, stride: int, score: str, fill: Description, target: int | None) -> Tuned:
    """The tuned plan that serves best to reach SSIM ``quality`` at a stride and score.

    First one that was tuned with the same fill, then for the same target (None: each image's largest), then one whose quality
    is promised, then the fastest.

    Raises:
        UsageError: ``quality`` is no SSIM, or the bundle has not been tuned for it.
    """
    if isinstance(quality, bool) or not isinstance(quality, int | float) or not 0 < quality <= 1:
        raise UsageError(f"quality is {quality!r}, expected 'exact', an SSIM above 0 and up to 1, or a sampling plan")
    fitting = [one for one in manifest.tuned if one.ssim >= quality and (one.stride, one.score) == (stride, score)]
    if not fitting:
        known = ", ".join(f"SSIM {one.ssim:g} of the {one.score} at stride {one.stride}" for one in manifest.tuned) or "nothing"
        raise UsageError(
            f"quality {quality:g} of the {score} at stride {stride}: the bundle is tuned for {known}; run 'kcompiler tune'"
        )
    return min(
        fitting,
        key=lambda one: (not _same(fill, one.fill), target != one.target, not one.promised, one.evidence.seconds),
    )


def _same(one: Description, other: Description) -> bool:
    return one is not None and one == other


def check_budget(seconds: float) -> float:
    """``seconds`` if it is a time.

    Raises:
        UsageError: it is not.
    """
    if not math.isfinite(seconds) or seconds <= 0:
        raise UsageError(f"budget is {seconds} seconds, expected more than 0")
    return seconds


def spots(evaluated: BoolArray) -> IntArray:
    """Cells of a spot check, int64 [N]: drawn from those not evaluated (bool [cells]), the same for the same."""
    open_cells = np.flatnonzero(~evaluated)
    return np.sort(np.random.default_rng(0).permutation(open_cells)[:SPOTS])


def spot_error(surface: FloatArray, cells: IntArray, scores: FloatArray) -> float:
    """Rms error of ``surface`` [rows, cols] at ``cells``, over the range of the map with the exact ``scores`` in it."""
    if not len(cells):
        return 0.0
    extent = max(float(surface.max()), float(scores.max())) - min(float(surface.min()), float(scores.min()))
    error = float(np.sqrt(np.mean((surface.ravel()[cells].astype(np.float64) - scores) ** 2)))
    return error / extent if extent > 0 else 0.0


def spot_check(exploration: Exploration, exact: Engine, fill: FloatArray | PatchFill, tuned: Tuned) -> list[str]:
    """Evaluates a few more positions exactly; a warning if the map is further off there than calibration images' maps were."""
    cells = spots(exploration.evaluated)
    if not len(cells):
        return []
    found = spot_error(exploration.surface(), cells, exploration.check(cells, exact, fill))
    limit = SPOT_SLACK * tuned.evidence.spot_error
    if found <= limit:
        return []
    return [
        f"the map is off by {found:.1%} of its range at {len(cells)} positions checked, where {limit:.1%} was the most to expect "
        "from the images it was tuned on; this image may be unlike them: tune with such images, or ask for quality 'exact'"
    ]


def unlike_tuned(tuned: Tuned, fill: Description, target: int, largest: int, *, part: bool) -> list[str]:
    """Warnings where an explanation is of another kind than those that its plan was tuned on.

    Args:
        fill: what the patch shows, see :class:`Tuned`.
        target: index of the output; ``largest`` of the one that is largest for the uncovered image.
        part: whether it is not of all valid positions and all channels.
    """
    expected = largest if tuned.target is None else tuned.target
    others = [
        (part, "on whole maps of all channels"),
        (not _same(fill, tuned.fill), f"with the fill {tuned.fill or 'of its own'}, not {fill or 'one of its own'}"),
        (target != expected, "on maps of " + ("the largest output" if tuned.target is None else f"output {expected}")),
    ]
    return [f"the plan was tuned {text}: its quality is not promised here" for unlike, text in others if unlike]


def saturation(probabilities: FloatArray, unoccluded: float) -> list[str]:
    """A warning if all probabilities are within :data:`SATURATED` of 0, or of 1."""
    every = np.append(probabilities, np.float32(unoccluded))
    if not (every.max() <= SATURATED or every.min() >= 1 - SATURATED):
        return []
    return [
        f"the probability is saturated: from {every.min():.6g} to {every.max():.6g} wherever the patch is; "
        "maps of the score 'logit' tell more"
    ]
