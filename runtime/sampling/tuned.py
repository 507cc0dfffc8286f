"""Using tuned plans: which plan fits a request, and whether its promise holds for the image."""

from __future__ import annotations

import math

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.bundle.plans import Tuned
from kcompiler.runtime.bundle.variant import DeviceName
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inputs.fills import PatchFill
from kcompiler.runtime.sampling.exploration import Exploration

SPOTS = 12
"""Positions of a spot check."""
SPOT_SLACK = 1.25
"""An image is unlike the calibration images if its spot error exceeds this times the largest of theirs."""
SATURATED = 0.01
"""A probability is saturated if it is this close to 0, or to 1, at all positions."""


Description = tuple[float, ...] | str | None
"""Description of a fill, see :class:`Tuned`."""


def find_tuned(
    manifest: Manifest, quality: object, stride: int, score: str, fill: Description, target: int | None,
    device: DeviceName = "cpu",
) -> Tuned:  # fmt: skip
    """The best plan for SSIM ``quality`` at a stride and score that was tuned with the variants for ``device``.

    Prefers, in this order, plans that were tuned with the same fill, for the same target (None: each image's largest), plans
    that are promised, and faster plans.

    Raises:
        UsageError: ``quality`` is no SSIM, or the bundle has no plan for it at this stride and score.
    """
    if isinstance(quality, bool) or not isinstance(quality, int | float) or not 0 < quality <= 1:
        raise UsageError(f"quality is {quality!r}, expected 'exact', an SSIM above 0 and up to 1, or a sampling plan")
    wanted = stride, score, device
    fitting = [plan for plan in manifest.tuned if plan.ssim >= quality and (plan.stride, plan.score, plan.device) == wanted]
    if not fitting:
        listed = ", ".join(
            f"SSIM {plan.ssim:g} of the {plan.score} at stride {plan.stride}{_elsewhere(plan, device)}" for plan in manifest.tuned
        )
        raise UsageError(
            f"quality {quality:g} of the {score} at stride {stride}: the bundle is tuned for {listed or 'nothing'}; "
            "run 'kcompiler tune'"
        )
    return min(
        fitting,
        key=lambda plan: (not _same(fill, plan.fill), target != plan.target, not plan.promised, plan.evidence.seconds),
    )


def _elsewhere(plan: Tuned, device: DeviceName) -> str:
    return "" if plan.device == device else f" by the variants for {plan.device}"


def _same(first: Description, second: Description) -> bool:
    return first is not None and first == second


def check_budget(seconds: float) -> float:
    """Validates a time budget and returns it.

    Raises:
        UsageError: not finite, or not above 0.
    """
    if not math.isfinite(seconds) or seconds <= 0:
        raise UsageError(f"budget is {seconds} seconds, expected more than 0")
    return seconds


def spots(evaluated: BoolArray) -> IntArray:
    """Cells of a spot check, int64 [N]: a random but deterministic sample of those not ``evaluated``, bool [cells]."""
    estimated = np.flatnonzero(~evaluated)
    return np.sort(np.random.default_rng(0).permutation(estimated)[:SPOTS])


def spot_error(surface: FloatArray, cells: IntArray, scores: FloatArray) -> float:
    """Rms error of ``surface`` [rows, cols] at ``cells``, over the range of the map and of the exact ``scores`` together."""
    if not len(cells):
        return 0.0
    extent = max(float(surface.max()), float(scores.max())) - min(float(surface.min()), float(scores.min()))
    error = float(np.sqrt(np.mean((surface.ravel()[cells].astype(np.float64) - scores) ** 2)))
    return error / extent if extent > 0 else 0.0


def spot_check(exploration: Exploration, exact: Engine, fill: FloatArray | PatchFill, tuned: Tuned) -> list[str]:
    """Evaluates a few more positions exactly; returns a warning if the map's error there exceeds that of calibration images."""
    cells = spots(exploration.evaluated)
    if not len(cells):
        return []
    error = spot_error(exploration.surface(), cells, exploration.check(cells, exact, fill))
    limit = SPOT_SLACK * tuned.evidence.spot_error
    if error <= limit:
        return []
    return [
        f"the map is off by {error:.1%} of its range at {len(cells)} positions checked, where {limit:.1%} was the most to expect "
        "from the images it was tuned on; this image may be unlike them: tune with such images, or ask for quality 'exact'"
    ]


def unlike_tuned(tuned: Tuned, fill: Description, target: int, largest: int, *, part: bool) -> list[str]:
    """Warnings where the settings of an explanation differ from those that its plan was tuned for.

    Args:
        fill: description of the fill, see :class:`Tuned`.
        target: index of the output.
        largest: index of the output that is largest for the uncovered image.
        part: whether the explanation leaves out some of the valid positions or channels.
    """
    expected = largest if tuned.target is None else tuned.target
    differences = [
        (part, "on whole maps of all channels"),
        (not _same(fill, tuned.fill), f"with the fill {tuned.fill or 'of its own'}, not {fill or 'one of its own'}"),
        (target != expected, "on maps of " + ("the largest output" if tuned.target is None else f"output {expected}")),
    ]
    return [f"the plan was tuned {text}: its quality is not promised here" for differs, text in differences if differs]


def saturation(probabilities: FloatArray, unoccluded: float) -> list[str]:
    """A warning if all probabilities are within :data:`SATURATED` of 0, or of 1."""
    values = np.append(probabilities, np.float32(unoccluded))
    if not (values.max() <= SATURATED or values.min() >= 1 - SATURATED):
        return []
    return [
        f"the probability is saturated: from {values.min():.6g} to {values.max():.6g} wherever the patch is; "
        "maps of the score 'logit' tell more"
    ]
