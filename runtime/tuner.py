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
    EXPECTED,
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
MORE_CAREFUL = 3
"""Plans more careful than the best of the exact variant that other variants start from."""


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
    """A plan of a trial, None for the exact one.

    Attributes:
        promised: whether it can be promised.
        kept: images of the second half, which had no part in its choice, on which it met the goal; of a plan that is not
            promised, those on which the plan chosen on the first half did, which is no more careful.
    """

    trial: Trial | None
    number: int
    promised: bool
    kept: int

    @property
    def plan(self) -> SamplingPlan:
        return self.trial.family.plans[self.number] if self.trial is not None else EVERYTHING


def fastest(trials: Sequence[Trial], goal: Goal, images: Sequence[int], within: float = np.inf) -> tuple[Trial, int] | None:
    """The trial, and number of its plan, that keeps the goal on its share of ``images`` in least time, less than ``within``."""
    best, least = None, within
    for trial in trials:
        number = trial.most_careless(goal, images)
        if number is not None and trial.seconds(number, images) < least:
            best, least = (trial, number), trial.seconds(number, images)
    return best


def promised(best: tuple[Trial, int] | None, goal: Goal, second: Sequence[int]) -> Chosen:
    """Of the family chosen on one half of the images, the fastest plan that keeps the promise, judged on the ``second`` half.

    Where that is too small for any promise, the plan that was chosen, or a more careful one if it takes one to keep the goal on
    both halves together.
    """
    if best is None:
        return Chosen(None, 0, True, len(second))
    trial, chosen = best
    kept = [trial.kept(number, goal, second) for number in range(len(trial.family.plans))]
    last = last_promised(kept, len(second), goal.share, goal.confidence)
    if last is not None:
        return Chosen(trial, last, True, kept[last])
    if len(second) >= images_needed(goal.share, goal.confidence):
        return Chosen(None, 0, True, len(second))
    together = trial.most_careless(goal, list(trial.outcomes)) or 0
    return Chosen(trial, min(chosen, together), False, kept[chosen])


def halves(count: int) -> tuple[list[int], list[int]]:
    """A random half of the images, the smaller one, and the others."""
    order = np.random.default_rng(0).permutation(count).tolist()
    return sorted(order[: count // 2]), sorted(order[count // 2 :])


def tune(explainer: Explainer, samples: Sequence[Sample], goal: Goal, tell: Tell = lambda *_: None) -> Tuned:
    """The fastest plan that keeps ``goal``, from the exact maps of calibration images.

    The exact variant's families are simulated on the first half of the images; each other variant runs the best of them
    there, about as careful and less; the fastest of all is then judged on the second half.
    """
    _check_maps(samples)
    first, second = halves(len(samples))
    known, held = ({number: samples[number] for number in part} for part in (first, second))
    exact_seconds = statistics.median(sample.exact.seconds for sample in samples)
    exact_costs = measured_costs(explainer.exact, samples, goal)
    trials = [try_family(explainer, f, known, goal, exact_costs, tell) for f in families()]
    template = fastest([trial for trial in trials if trial.family.plans[0].method == "kriging"], goal, first)
    if template is not None:
        plan, start = template[0].family.plans[0], max(0, template[1] - MORE_CAREFUL)
        for name, engine in list(explainer.engines.items())[1:]:
            family = kriging(name, plan.step, plan.correlation, EXPECTED[start:])
            trials.append(try_family(explainer, family, known, goal, measured_costs(engine, samples, goal), tell))
    best = fastest(trials, goal, first, exact_seconds)
    if best is not None:
        judged = try_family(explainer, best[0].family, held, goal, best[0].costs, tell)
        best = best[0].joined(judged), best[1]
    chosen = promised(best, goal, second)
    checked = exact_costs.of_round(SPOTS) + (exact_costs.once if chosen.plan.variant != EVERYTHING.variant else 0.0)
    return _tuned(explainer, samples, goal, chosen, trials, (first, second), (exact_seconds, checked), tell)


def _check_maps(samples: Sequence[Sample]) -> None:
    """Whether there are enough maps, and all of them finite.

    Raises:
        UsageError: they are not.
    """
    if len(samples) < LEAST_IMAGES:
        raise UsageError(f"{len(samples)} calibration images, expected at least {LEAST_IMAGES}")
    for number, sample in enumerate(samples):
        if not np.isfinite(sample.exact.scores).all():
            raise UsageError(
                f"the exact map of calibration image {number} is not finite everywhere, so it cannot be approximated; "
                "leave the image out, or tune for another score or target"
            )


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
    return Tuned(
        ssim=goal.ssim, share=goal.share, confidence=goal.confidence, promised=chosen.promised, stride=goal.stride,
        score=explainer.scored(goal.score)[0], plan=chosen.plan,
        evidence=Evidence(
            images=len(samples), held_out=len(second), kept=chosen.kept,
            least_share=least_share(chosen.kept, len(second), goal.confidence),
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
    number = trial.most_careless(goal, images) or 0
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
