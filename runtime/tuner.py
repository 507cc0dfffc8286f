"""Tuning: the fastest sampling plan that keeps an SSIM on a share of all images, and the evidence for it.

Exact maps of the calibration images are computed once. On them plans are simulated at no inference cost; variants that
are not exact are run. One half of the images chooses the plan, the other half, which it has not seen, says what may be
promised of it (``promise``).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.images import FloatArray
from kcompiler.runtime.plans import EVERYTHING, Evidence, SamplingPlan, Tuned
from kcompiler.runtime.promise import images_needed, last_promised, least_share
from kcompiler.runtime.quality import Quality, quality
from kcompiler.runtime.trials import (
    CORRELATIONS,
    STEPS,
    Goal,
    Sample,
    Tell,
    Trial,
    families,
    kriging,
    measured_costs,
    try_family,
)
from kcompiler.runtime.tuned import SPOTS, spot_error, spots

LEAST_IMAGES = 2


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


@dataclass(frozen=True, slots=True)
class Chosen:
    """A plan of a trial, None for the exact one, and whether it can be promised."""

    trial: Trial | None
    number: int
    promised: bool

    @property
    def plan(self) -> SamplingPlan:
        return self.trial.family.plans[self.number] if self.trial is not None else EVERYTHING


def choose(trials: Sequence[Trial], goal: Goal, first: Sequence[int], second: Sequence[int], exact_seconds: float) -> Chosen:
    """The family that is fastest where it keeps the goal on the ``first`` half, and its fastest plan that keeps the promise.

    Where the ``second`` half is too small for any promise, the fastest that keeps the goal on the first.
    """
    best: tuple[float, Trial] | None = None
    for trial in trials:
        number = trial.most_careless(goal, first)
        if number is not None and (best is None or trial.seconds(number, first) < best[0]):
            best = trial.seconds(number, first), trial
    if best is None or best[0] >= exact_seconds:
        return Chosen(None, 0, True)
    trial = best[1]
    kept = [trial.kept(number, goal, second) for number in range(len(trial.family.plans))]
    promised = last_promised(kept, len(second), goal.share, goal.confidence)
    if promised is not None:
        return Chosen(trial, promised, True)
    number = trial.most_careless(goal, first)
    if len(second) >= images_needed(goal.share, goal.confidence) or number is None:
        return Chosen(None, 0, True)
    return Chosen(trial, number, False)


def halves(count: int) -> tuple[list[int], list[int]]:
    """A random half of the images, the smaller one, and the others."""
    order = np.random.default_rng(0).permutation(count).tolist()
    return sorted(order[: count // 2]), sorted(order[count // 2 :])


def tune(explainer: Explainer, samples: Sequence[Sample], goal: Goal, tell: Tell = lambda *_: None) -> Tuned:
    """The fastest plan that keeps ``goal``, from the exact maps of calibration images.

    The exact variant's families are simulated; each other variant then runs the best of them.
    """
    first, second = halves(len(samples))
    exact_seconds = statistics.median(sample.exact.seconds for sample in samples)
    engines = explainer.engines
    exact_costs = measured_costs(explainer.exact, samples, goal)
    trials = [try_family(explainer, f, samples, goal, exact_costs, tell) for f in families(EVERYTHING.variant)]
    best = choose(trials, goal, first, first, np.inf).trial
    template = best.family.plans[0] if best is not None and best.family.plans[0].method == "kriging" else None
    step, correlation = (template.step, template.correlation) if template is not None else (STEPS[-1], CORRELATIONS[1])
    for name, engine in list(engines.items())[1:]:
        family = kriging(name, step, correlation)
        trials.append(try_family(explainer, family, samples, goal, measured_costs(engine, samples, goal), tell))
    chosen = choose(trials, goal, first, second, exact_seconds)
    checked = exact_costs.of_round(SPOTS) + (exact_costs.once if chosen.plan.variant != EVERYTHING.variant else 0.0)
    return _tuned(explainer, samples, goal, chosen, trials, (first, second), (exact_seconds, checked), tell)


def _tuned(
    explainer: Explainer, samples: Sequence[Sample], goal: Goal, chosen: Chosen, trials: Sequence[Trial],
    parts: tuple[Sequence[int], Sequence[int]], seconds: tuple[float, float], tell: Tell,
) -> Tuned:  # fmt: skip
    """Runs the chosen plan on all images, and writes down what it did; ``seconds`` of an exact map, and of a spot check."""
    first, second = parts
    exact_seconds, checked = seconds
    runs = []
    for number, sample in enumerate(samples):
        tell("running the plan", number, len(samples))
        runs.append(_run(explainer, sample, goal, chosen.plan))
    held = [runs[number] for number in second]
    kept = sum(run.quality.ssim >= goal.ssim for run in held)
    return Tuned(
        ssim=goal.ssim, share=goal.share, confidence=goal.confidence, promised=chosen.promised, stride=goal.stride,
        score=explainer.scored(goal.score)[0], plan=chosen.plan,
        evidence=Evidence(
            images=len(samples), held_out=len(second), kept=kept, least_share=least_share(kept, len(second), goal.confidence),
            ssim=tuple(sorted(run.quality.ssim for run in held)),
            pearson=statistics.median(run.quality.pearson for run in held),
            top_overlap=statistics.median(run.quality.top_overlap for run in held),
            rendered_ssim=statistics.median(run.quality.rendered_ssim for run in held),
            evaluated=statistics.fmean(run.evaluated for run in runs),
            seconds=statistics.median(run.seconds for run in runs) + (0.0 if chosen.trial is None else checked),
            exact_seconds=exact_seconds,
            spot_error=max(run.spot_error for run in runs), candidates=tuple(_candidate(one, goal, first) for one in trials),
        ),
    )  # fmt: skip


def _candidate(trial: Trial, goal: Goal, images: Sequence[int]) -> tuple[str, float, float, float]:
    number = trial.most_careless(goal, images)
    number = 0 if number is None else number
    return (
        trial.family.name, trial.evaluated(number, images), trial.seconds(number, images),
        trial.kept(number, goal, images) / len(images),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A plan carried out on a calibration image; ``evaluated`` is a share of the positions."""

    quality: Quality
    evaluated: float
    seconds: float
    spot_error: float


def _as_given(explainer: Explainer, image: FloatArray) -> FloatArray:
    """An image [1, C, H, W] in the layout that the source takes."""
    return image if explainer.manifest.layout == "NCHW" else np.ascontiguousarray(image.transpose(0, 2, 3, 1))


def _run(explainer: Explainer, sample: Sample, goal: Goal, plan: SamplingPlan) -> Run:
    found = explainer.explain(
        _as_given(explainer, sample.image), stride=goal.stride, target=sample.exact.target, fill=goal.fill,
        score=goal.score, quality=plan,
    )  # fmt: skip
    cells = spots(found.sampled.ravel())
    return Run(
        quality(found.scores, sample.exact.scores, sample.exact.unoccluded),
        found.evaluated / found.scores.size,
        found.seconds,
        spot_error(found.scores, cells, sample.exact.scores.ravel()[cells]),
    )
