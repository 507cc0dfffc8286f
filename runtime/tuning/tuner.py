"""Tuning: the fastest sampling plan that keeps an SSIM on a share of all images, and the evidence for it.

Exact maps of calibration images are computed once. On them plans are simulated at no inference cost; variants that are not
exact are run. A few of the images choose the plan (``racing``), the others, which it has not seen, say what may be promised of
it (``promise``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.plans import EVERYTHING, Evidence, SamplingPlan, Tuned
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.images import described_fill
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.sampling.quality import Quality, quality
from kcompiler.runtime.sampling.tuned import SPOTS, spot_error, spots
from kcompiler.runtime.tuning.judging import Chosen, fastest, judged, split
from kcompiler.runtime.tuning.promise import least_share
from kcompiler.runtime.tuning.racing import measured_costs, race, worthwhile
from kcompiler.runtime.tuning.simulation import Family
from kcompiler.runtime.tuning.trials import (
    EXPECTED,
    Costs,
    Goal,
    Sample,
    Tell,
    Trial,
    families,
    kriging,
    try_family,
)

LEAST_IMAGES = 2
TIMED = 3
"""Explanations by the chosen plan that are timed."""
MORE_CAREFUL = 5
"""Plans more careful than the best of the exact variant that other variants start from while they race."""


def check_images(explainer: Explainer, images: Mapping[str, FloatArray]) -> None:
    """Whether there are images to calibrate with, each fit for the model.

    Raises:
        UsageError: fewer than two.
        ImageError: one does not fit, or is there twice.
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
    """The fastest plan that keeps ``goal``, from the exact maps of calibration images.

    The exact variant's families are simulated on the images that choose; each worthwhile other variant runs the best of them
    there, about as careful and less; the fastest of all is then judged on images that had no part in that
    (:func:`~kcompiler.runtime.tuning.judging.judged`).

    Args:
        samples: taken one by one as they are needed, so their maps may be made then; not all may be.
        tell: told of progress.
        deadline: reading of ``time.perf_counter`` after which no more samples are taken, beyond one to choose and one to judge.

    Raises:
        UsageError: fewer than two samples, or a map that is not finite.
    """
    if len(samples) < LEAST_IMAGES:
        raise UsageError(f"{len(samples)} calibration images, expected at least {LEAST_IMAGES}")
    first, second = split(len(samples), goal)
    known = _taken(samples, first, deadline, tell)
    held = _taken(samples, second, deadline, tell, "exact maps to judge by")
    grid = next(iter(known.values())).exact
    positions = Grid(grid.ys, grid.xs).positions
    costs = measured_costs(explainer.engines, [sample.image for sample in known.values()], positions, goal)
    smooth = race(explainer, [one for one in families() if one.method == "kriging"], known, goal, costs, tell)
    trials = smooth + race(explainer, [one for one in families() if one.method != "kriging"], known, goal, costs, tell)
    template = fastest(smooth, goal, list(known))
    if template is not None:
        plan, start = template[0].family.plans[0], max(0, template[1] - MORE_CAREFUL)
        variants = worthwhile(explainer.manifest.variants, costs)
        approximate = [kriging(name, plan.step, plan.correlation, EXPECTED[start:]) for name in variants]
        trials += race(explainer, approximate, known, goal, costs, tell)
    every = known | held
    exact_seconds = statistics.median(sample.exact.seconds for sample in every.values())

    def run(family: Family, costs: Costs, numbers: Sequence[int]) -> Trial:
        return try_family(explainer, family, {number: every[number] for number in numbers}, goal, costs, tell)

    chosen = judged(trials, goal, (list(known), list(held)), exact_seconds, run)
    exact = costs[EVERYTHING.variant]
    checked = exact.of_round(SPOTS) + (exact.once if chosen.plan.variant != EVERYTHING.variant else 0.0)
    return _tuned(explainer, (known, held), len(samples), goal, chosen, trials, (exact_seconds, checked), tell)


def _taken(
    samples: Sequence[Sample], numbers: Sequence[int], deadline: float, tell: Tell, what: str = "exact maps"
) -> dict[int, Sample]:
    """Some of the samples by number: all, or as many as there is time for, but one at least.

    Raises:
        UsageError: the map of one is not finite.
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
    trials: Sequence[Trial], seconds: tuple[float, float], tell: Tell,
) -> Tuned:  # fmt: skip
    """Writes down what the chosen plan did; ``seconds`` of an exact map, and of a spot check."""
    known, held = parts
    exact_seconds, checked = seconds
    every = {**known, **held}
    served = {number: _served(chosen, number, sample) for number, sample in every.items()}
    unseen = [served[number].quality for number in held]
    timed = []
    for done, number in enumerate(list(held)[:TIMED]):
        tell("timing the plan", done, min(TIMED, len(held)))
        timed.append(_seconds(explainer, held[number], goal, chosen.plan))
    return Tuned(
        ssim=goal.ssim, share=goal.share, confidence=goal.confidence, promised=chosen.promised, stride=goal.stride,
        score=explainer.targets.scored(goal.score)[0], fill=described_fill(goal.fill, explainer.manifest.shape),
        target=None if goal.target is None else explainer.targets.index(goal.target), plan=chosen.plan,
        evidence=Evidence(
            given=given, images=len(every), held_out=len(held), kept=chosen.kept,
            least_share=least_share(chosen.kept, len(held), goal.confidence),
            ssim=tuple(sorted(one.ssim for one in unseen)),
            pearson=statistics.median(one.pearson for one in unseen),
            top_overlap=statistics.median(one.top_overlap for one in unseen),
            rendered_ssim=statistics.median(one.rendered_ssim for one in unseen),
            evaluated=statistics.fmean(one.evaluated for one in served.values()),
            seconds=statistics.median(timed) + (0.0 if chosen.trial is None else checked), exact_seconds=exact_seconds,
            spot_error=max(one.spot_error for one in served.values()),
            candidates=tuple(_candidate(one, goal, list(known)) for one in trials),
        ),
    )  # fmt: skip


def _candidate(trial: Trial, goal: Goal, choosing: Sequence[int]) -> tuple[str, float, float, float]:
    images = [number for number in choosing if number in trial.outcomes]
    number = trial.most_careless(goal, images) or 0
    return (
        trial.family.name, trial.evaluated(number, images), trial.seconds(number, images),
        trial.kept(number, goal, images) / len(images),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """What a plan did on a calibration image; ``evaluated`` is a share of the positions."""

    quality: Quality
    evaluated: float
    spot_error: float


def _served(chosen: Chosen, image: int, sample: Sample) -> Served:
    exact = sample.exact
    if chosen.trial is None:
        return Served(quality(exact.scores, exact.scores, exact.unoccluded), 1.0, 0.0)
    found = chosen.trial.outcomes[image][chosen.number]
    cells = spots(found.sampled.ravel())
    return Served(
        quality(found.surface, exact.scores, exact.unoccluded),
        found.evaluated / exact.scores.size,
        spot_error(found.surface, cells, exact.scores.ravel()[cells]),
    )


def _seconds(explainer: Explainer, sample: Sample, goal: Goal, plan: SamplingPlan) -> float:
    """That an explanation by ``plan`` takes."""
    image = sample.image if explainer.manifest.layout == "NCHW" else np.ascontiguousarray(sample.image.transpose(0, 2, 3, 1))
    found = explainer.explain(
        image, stride=goal.stride, target=sample.exact.target, fill=goal.fill, score=goal.score, quality=plan
    )
    return found.seconds
