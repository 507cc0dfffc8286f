"""Tuning: the fastest sampling plan that keeps an SSIM on a share of all images, and the evidence for it.

Exact maps of the calibration images are computed once. On them plans are simulated at no inference cost; variants that
are not exact are run. One half of the images chooses the plan, the other half, which it has not seen, says what may be
promised of it (``promise``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.engine import Baseline, Engine
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.explainer import Explainer, Score
from kcompiler.runtime.heatmap import HeatMap
from kcompiler.runtime.images import Fill, FloatArray
from kcompiler.runtime.manifest import EVERYTHING, Evidence, SamplingPlan, Tuned
from kcompiler.runtime.positions import Grid, IntArray
from kcompiler.runtime.promise import images_needed, last_promised, least_share
from kcompiler.runtime.quality import Quality, quality
from kcompiler.runtime.simulation import Family, Outcome, Scores, outcomes, recorded
from kcompiler.runtime.tuned import spot_error, spots

EXPECTED = (0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.77, 0.74, 0.7, 0.65, 0.6, 0.5)
"""Expected SSIM at which kriging ends, from the most careful on."""
CORRELATIONS = (0.35, 0.5)
STEPS = (6, 8)
MOST_EVALUATED = 0.4
DRILL_DOWN_SHARES = (0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
TIMED_COUNTS = (8, 32, 64, 128)
TIMED_ROUNDS = 3
LEAST_IMAGES = 2
TIMED_IMAGES = 8
"""Images on which the plan that was chosen and the exact one are timed."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be kept, and for which explanations.

    Attributes:
        ssim: of the raw map with the exact one, above 0, up to 1.
        share: of all images on which it is to be reached.
        confidence: that it is.
        stride: of the grid, pixels.
        score: see :meth:`Explainer.explain`.
        target: likewise.
        fill: likewise.
    """

    ssim: float = 0.9
    share: float = 0.9
    confidence: float = 0.95
    stride: int = 4
    score: Score = "auto"
    target: int | str | None = None
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.ssim <= 1:
            raise UsageError(f"ssim is {self.ssim}, expected above 0, up to 1")
        for name, value in (("share", self.share), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise UsageError(f"{name} is {value}, expected between 0 and 1")


@dataclass(frozen=True, slots=True)
class Sample:
    """A calibration image: float32 in the model's layout, and its exact map."""

    image: FloatArray
    exact: HeatMap


@dataclass(frozen=True, slots=True)
class Costs:
    """What a variant takes, in seconds: an explanation without its positions, and a round by its positions.

    Attributes:
        once: baseline pass and uncovered outputs.
        counts: int64 [sizes], ascending from 0; ``seconds`` float64 [sizes] of such a round.
    """

    once: float
    counts: IntArray
    seconds: np.ndarray

    def of(self, outcome: Outcome) -> float:
        """Predicted seconds of an explanation."""
        each = (self.seconds[-1] - self.seconds[-2]) / (self.counts[-1] - self.counts[-2])
        rounds = np.array(outcome.rounds)
        beyond = np.maximum(rounds - self.counts[-1], 0) * each
        return self.once + outcome.seconds + float((np.interp(rounds, self.counts, self.seconds) + beyond).sum())


@dataclass(frozen=True, slots=True)
class Trial:
    """A family on all images: of each, the outcomes of its plans."""

    family: Family
    outcomes: tuple[tuple[Outcome, ...], ...]
    costs: Costs

    def kept(self, number: int, goal: Goal, images: Sequence[int]) -> int:
        """On how many of ``images`` plan ``number`` meets the goal."""
        return sum(self.outcomes[image][number].ssim >= goal.ssim for image in images)

    def seconds(self, number: int, images: Sequence[int]) -> float:
        """Predicted, the mean over ``images``."""
        return statistics.fmean(self.costs.of(self.outcomes[image][number]) for image in images)

    def evaluated(self, number: int, images: Sequence[int]) -> float:
        return statistics.fmean(self.outcomes[image][number].evaluated for image in images)

    def most_careless(self, goal: Goal, images: Sequence[int]) -> int | None:
        """The last plan such that it, and every more careful one, meets the goal on its share of ``images``."""
        last = None
        for number in range(len(self.family.plans)):
            if self.kept(number, goal, images) < goal.share * len(images):
                break
            last = number
        return last


Tell = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is done."""


def exact_maps(explainer: Explainer, image: FloatArray, goal: Goal) -> HeatMap:
    """The exact map of a calibration image."""
    return explainer.explain(image, stride=goal.stride, target=goal.target, fill=goal.fill, score=goal.score)


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


def families(variant: str, methods: Sequence[str] = ("kriging", "drill-down")) -> list[Family]:
    """All families of plans that ``variant`` can carry out."""
    found = []
    if "kriging" in methods:
        found += [_kriging(variant, step, correlation) for step in STEPS for correlation in CORRELATIONS]
    if "drill-down" in methods:
        found += [
            Family(
                f"drill-down, step {step}, {variant}",
                tuple(SamplingPlan(method="drill-down", variant=variant, step=step, share=r) for r in DRILL_DOWN_SHARES),
            )
            for step in (2, 4)
        ]
    return found


def _kriging(variant: str, step: int, correlation: float) -> Family:
    plan = SamplingPlan(variant=variant, step=step, correlation=correlation, share=MOST_EVALUATED)
    plans = tuple(plan.model_copy(update={"expected_ssim": expected}) for expected in EXPECTED)
    return Family(f"kriging, step {step}, correlation {correlation:g}, {variant}", plans)


def measured_costs(engine: Engine, samples: Sequence[Sample], goal: Goal) -> Costs:
    """Times baseline passes and rounds of scattered positions; medians."""
    grid = Grid(samples[0].exact.ys, samples[0].exact.xs)
    positions = np.random.default_rng(0).permutation(grid.positions)
    counts = [count for count in TIMED_COUNTS if count < len(positions)] or [1]
    once, rounds = [], []
    for number in range(TIMED_ROUNDS + 1):
        image = samples[number % len(samples)].image
        start = time.perf_counter()
        baseline = engine.baseline(image, goal.fill, len(positions))
        engine.unoccluded(baseline)
        once.append(time.perf_counter() - start)
        rounds.append([_timed(engine, baseline, positions[:count]) for count in counts])
    middle = np.median(np.array(rounds[1:]), axis=0)  # the first round is for warming up
    return Costs(statistics.median(once[1:]), np.array([0, *counts]), np.array([0.0, *np.maximum.accumulate(middle)]))


def _timed(engine: Engine, baseline: Baseline, positions: IntArray) -> float:
    start = time.perf_counter()
    engine.evaluate_all(baseline, positions)
    return time.perf_counter() - start


def try_family(explainer: Explainer, family: Family, samples: Sequence[Sample], goal: Goal, costs: Costs, tell: Tell) -> Trial:
    """The outcomes of a family on all images: simulated for the exact variant, run for others."""
    found = []
    for number, sample in enumerate(samples):
        tell(family.name, number, len(samples))
        found.append(tuple(outcomes(family, sample.exact, _scores(explainer, family, sample, goal))))
    return Trial(family, tuple(found), costs)


def _scores(explainer: Explainer, family: Family, sample: Sample, goal: Goal) -> Scores:
    variant = family.plans[0].variant
    if variant == EVERYTHING.variant:
        return recorded(sample.exact)
    engine, grid = explainer.engines[variant], Grid(sample.exact.ys, sample.exact.xs)
    baseline = engine.baseline(sample.image, goal.fill, len(grid.positions))
    output, target = explainer.scored(goal.score)[1], sample.exact.target
    return lambda cells: engine.evaluate_all(baseline, grid.positions[cells], output)[:, target]


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

    Where the ``second`` half is too small for any promise, the fastest that keeps the goal on all images.
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
    everywhere = trial.most_careless(goal, [*first, *second])
    if len(second) >= images_needed(goal.share, goal.confidence) or everywhere is None:
        return Chosen(None, 0, True)
    return Chosen(trial, everywhere, False)


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
        family = _kriging(name, step, correlation)
        trials.append(try_family(explainer, family, samples, goal, measured_costs(engine, samples, goal), tell))
    chosen = choose(trials, goal, first, second, exact_seconds)
    return _tuned(explainer, samples, goal, chosen, trials, (first, second), exact_seconds, tell)


def _tuned(
    explainer: Explainer, samples: Sequence[Sample], goal: Goal, chosen: Chosen, trials: Sequence[Trial],
    parts: tuple[Sequence[int], Sequence[int]], exact_seconds: float, tell: Tell,
) -> Tuned:  # fmt: skip
    """Runs the chosen plan on all images, and writes down what it did."""
    first, second = parts
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
            seconds=statistics.median(run.seconds for run in runs), exact_seconds=exact_seconds,
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


def _run(explainer: Explainer, sample: Sample, goal: Goal, plan: SamplingPlan) -> Run:
    found = explainer.explain(
        sample.image, stride=goal.stride, target=sample.exact.target, fill=goal.fill, score=goal.score, quality=plan
    )
    cells = spots(found.sampled.ravel())
    return Run(
        quality(found.scores, sample.exact.scores, sample.exact.unoccluded),
        found.evaluated / found.scores.size,
        found.seconds,
        spot_error(found.scores, cells, sample.exact.scores.ravel()[cells]),
    )
