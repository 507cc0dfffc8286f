"""Tuning: the fastest sampling plan that reaches an SSIM on a share of all images, and the evidence for it.

Exact maps of calibration images are computed once. On these, plans of the exact variant are simulated without inference; other
variants run. A few of the images choose the plan (``racing``). The others, which had no part in the choice, decide whether it
can be promised (``promise``). Times are of this very hour, and measured side by side (``measured``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.plans import EVERYTHING, Evidence, Tuned
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.images import described_fill
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.sampling.quality import Quality, quality
from kcompiler.runtime.sampling.tuned import spot_error, spots
from kcompiler.runtime.tuning.judging import Chosen, exactly, fastest, judged, split
from kcompiler.runtime.tuning.measured import Times, measured_costs, side_by_side
from kcompiler.runtime.tuning.promise import least_share
from kcompiler.runtime.tuning.racing import race, worthwhile
from kcompiler.runtime.tuning.simulation import Family
from kcompiler.runtime.tuning.trials import (
    EXPECTED,
    Costs,
    Goal,
    Sample,
    Tell,
    Trial,
    families,
    families_for_export,
    kriging,
    try_family,
)

LEAST_IMAGES = 2
MORE_CAREFUL = 5
"""Other variants race with the plans of the exact variant's best family, from this many before its best plan on."""


def check_images(explainer: Explainer, images: Mapping[str, FloatArray]) -> None:
    """Checks calibration images, by name.

    Raises:
        UsageError: fewer than two images.
        ImageError: an image does not fit the model, or occurs twice.
    """
    if len(images) < LEAST_IMAGES:
        raise UsageError(f"{len(images)} calibration images, expected at least {LEAST_IMAGES}")
    seen: dict[bytes, str] = {}
    for name, image in images.items():
        try:
            content = explainer.check_image(image).tobytes()
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error
        if content in seen:
            raise ImageError(f"{name}: is the same image as {seen[content]}; give different images")
        seen[content] = name


def tune(
    explainer: Explainer, samples: Sequence[Sample], goal: Goal, tell: Tell = lambda *_: None, deadline: float = np.inf
) -> Tuned:
    """The fastest plan that reaches ``goal``, from the exact maps of calibration images.

    The exact variant's families are simulated on the images that choose. Each other worthwhile variant runs the best of these
    families there, with plans about as careful and less careful. The fastest plan is then judged on the other images
    (:func:`~kcompiler.runtime.tuning.judging.judged`).

    Args:
        samples: read item by item when needed, so that an item can compute its map then; some may never be read.
        tell: receives progress.
        deadline: time (of ``time.perf_counter``) after which no samples are read, beyond one for choosing and one for judging.

    Raises:
        UsageError: fewer than two samples, a map that is not finite, or a plan for export that would be tuned on another device.
    """
    if goal.for_export and explainer.exact.variant.device != "cpu":
        raise UsageError("map models are made of the variants for the CPU: tune plans for export with the provider cpu")
    if len(samples) < LEAST_IMAGES:
        raise UsageError(f"{len(samples)} calibration images, expected at least {LEAST_IMAGES}")
    first, second = split(len(samples), goal)
    choosing = _read(samples, first, deadline, tell)
    judging = _read(samples, second, deadline, tell, "exact maps to judge by")
    grid = next(iter(choosing.values())).exact
    positions = Grid(grid.ys, grid.xs).positions
    costs = measured_costs(explainer.engines, [sample.image for sample in choosing.values()], positions, goal)
    trials = (_trials_for_export if goal.for_export else _trials)(explainer, choosing, goal, costs, tell)
    taken = choosing | judging
    judgings: list[Trial] = []

    def run(family: Family, costs: Costs, numbers: Sequence[int]) -> Trial:
        images = {number: taken[number] for number in numbers}
        judgings.append(try_family(explainer, family, images, goal, costs, tell))
        return judgings[-1]

    within = costs[EVERYTHING.variant].of_map
    chosen = judged(trials, goal, (list(choosing), list(judging)), within, run)
    times = side_by_side(explainer, list(judging.values()), goal, chosen.plan, tell)
    if chosen.trial is None or times.plan >= times.exact:
        chosen, times = exactly(judging), replace(times, plan=times.exact)
    return _tuned(explainer, (choosing, judging), len(samples), goal, chosen, trials, judgings, times)


def _trials(
    explainer: Explainer, choosing: Mapping[int, Sample], goal: Goal, costs: Mapping[str, Costs], tell: Tell
) -> list[Trial]:
    """Trials of all families by the exact variant, and of the best kriging family by the other worthwhile variants."""
    smooth = race(explainer, [family for family in families() if family.method == "kriging"], choosing, goal, costs, tell)
    others = [family for family in families() if family.method != "kriging"]
    trials = smooth + race(explainer, others, choosing, goal, costs, tell)
    template = fastest(smooth, goal, list(choosing))
    if template is None:
        return trials
    plan, start = template[0].family.plans[0], max(0, template[1] - MORE_CAREFUL)
    variants = worthwhile(explainer.variants, costs)
    approximate = [kriging(name, plan.step, plan.correlation, EXPECTED[start:]) for name in variants]
    return trials + race(explainer, approximate, choosing, goal, costs, tell)


def _trials_for_export(
    explainer: Explainer, choosing: Mapping[int, Sample], goal: Goal, costs: Mapping[str, Costs], tell: Tell
) -> list[Trial]:
    """Trials of the families that a map model carries out."""
    return race(explainer, families_for_export(worthwhile(explainer.variants, costs)), choosing, goal, costs, tell)


def _read(
    samples: Sequence[Sample], numbers: Sequence[int], deadline: float, tell: Tell, what: str = "exact maps"
) -> dict[int, Sample]:
    """Reads the samples with these ``numbers``, until the deadline, but at least the first.

    Raises:
        UsageError: a map is not finite.
    """
    taken: dict[int, Sample] = {}
    for number in numbers:
        if taken and time.perf_counter() >= deadline:
            break
        tell(what, len(taken), len(numbers))
        taken[number] = samples[number]
        if not np.isfinite(taken[number].exact.scores).all():
            raise UsageError(
                f"the exact map of calibration image {number} is not finite everywhere, so it cannot be approximated; "
                "leave the image out, or tune for another score or target"
            )
    return taken


def _tuned(
    explainer: Explainer, parts: tuple[Mapping[int, Sample], Mapping[int, Sample]], given: int, goal: Goal, chosen: Chosen,
    trials: Sequence[Trial], judgings: Sequence[Trial], times: Times,
) -> Tuned:  # fmt: skip
    """The record of the chosen plan and its evidence."""
    choosing, judging = parts
    samples = {**choosing, **judging}
    served = {number: _served(chosen, number, sample) for number, sample in samples.items()}
    qualities = [served[number].quality for number in judging]
    return Tuned(
        ssim=goal.ssim, share=goal.share, confidence=goal.confidence, promised=chosen.promised, stride=goal.stride,
        score=explainer.targets.scored(goal.score)[0], fill=described_fill(goal.fill, explainer.manifest.shape),
        target=None if goal.target is None else explainer.targets.index(goal.target), plan=chosen.plan,
        evidence=Evidence(
            given=given, images=len(samples), held_out=len(judging), kept=chosen.kept,
            least_share=least_share(chosen.kept, len(judging), goal.confidence),
            ssim=tuple(sorted(q.ssim for q in qualities)),
            pearson=statistics.median(q.pearson for q in qualities),
            top_overlap=statistics.median(q.top_overlap for q in qualities),
            rendered_ssim=statistics.median(q.rendered_ssim for q in qualities),
            evaluated=statistics.fmean(result.evaluated for result in served.values()),
            seconds=times.plan, exact_seconds=times.exact,
            spot_error=max(result.spot_error for result in served.values()),
            candidates=tuple(_candidate(trial, goal, list(choosing)) for trial in trials),
            judged=tuple(_judged(trials, judgings, goal, list(choosing), list(judging))),
        ),
        device=explainer.exact.variant.device,
    )  # fmt: skip


def _candidate(trial: Trial, goal: Goal, choosing: Sequence[int]) -> tuple[str, float, float, float]:
    """An entry of :attr:`Evidence.candidates`, for the best plan of a trial."""
    images = [number for number in choosing if number in trial.outcomes]
    number = trial.most_careless(goal, images) or 0
    return (
        trial.family.name, trial.evaluated(number, images), trial.seconds(number, images),
        trial.kept(number, goal, images) / len(images),
    )  # fmt: skip


def _judged(
    trials: Sequence[Trial], judgings: Sequence[Trial], goal: Goal, choosing: Sequence[int], judging: Sequence[int]
) -> Iterator[tuple[str, int]]:
    """Entries of :attr:`Evidence.judged`: of each family that ran on the held-out images, its plan in ``candidates``."""
    ran = {trial.family.name: trial for trial in judgings}  # of a family that ran twice the second time, with all its plans
    for trial in trials:
        if trial.family.name in ran:
            images = [number for number in choosing if number in trial.outcomes]
            plan = trial.family.plans[trial.most_careless(goal, images) or 0]
            other = ran[trial.family.name]
            yield trial.family.name, other.kept(other.family.plans.index(plan), goal, judging)


@dataclass(frozen=True, slots=True)
class Served:
    """The result of a plan on a calibration image; ``evaluated`` is the share of positions evaluated."""

    quality: Quality
    evaluated: float
    spot_error: float


def _served(chosen: Chosen, image: int, sample: Sample) -> Served:
    exact = sample.exact
    if chosen.trial is None:
        return Served(quality(exact.scores, exact.scores, exact.unoccluded), 1.0, 0.0)
    outcome = chosen.trial.outcomes[image][chosen.number]
    cells = spots(outcome.sampled.ravel())
    return Served(
        quality(outcome.surface, exact.scores, exact.unoccluded),
        outcome.evaluated / exact.scores.size,
        spot_error(outcome.surface, cells, exact.scores.ravel()[cells]),
    )
