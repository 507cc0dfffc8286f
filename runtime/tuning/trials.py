"""Trials of families of sampling plans on calibration images: simulated for the exact variant, run for other variants."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.bundle.targets import Score
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.tuning.simulation import Family, Outcome, Scores, outcomes, recorded

EXPECTED = (
    0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91, 0.9, 0.89, 0.88, 0.87, 0.86, 0.84, 0.82, 0.8, 0.77, 0.74, 0.7, 0.65, 0.6, 0.5,
)  # fmt: skip
"""Expected SSIM at which kriging ends; the most careful plan first."""
CORRELATIONS = (0.3, 0.4, 0.5)
STEPS = (6, 8)
MOST_EVALUATED = 0.6
DRILL_DOWN_STEPS = (2, 4)
DRILL_DOWN_SHARES = (0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)


@dataclass(frozen=True, slots=True)
class Goal:
    """The quality to reach, and the settings of the explanations.

    Attributes:
        ssim: SSIM of the raw map with the exact map, above 0, up to 1.
        share: share of all images on which to reach it.
        confidence: confidence level of that.
        stride: stride of the grid, in pixels.
        score: see :meth:`Explainer.explain`; a plan for a score serves its "drop" too, which differs by a constant and sign.
        target: see :meth:`Explainer.explain`.
        fill: see :meth:`Explainer.explain`.
        for_export: whether only plans are considered that a map model carries out (:func:`kcompiler.export`).
    """

    ssim: float = 0.9
    share: float = 0.9
    confidence: float = 0.95
    stride: int = 4
    score: Score = "auto"
    target: int | str | None = None
    fill: Fill = 0.0
    for_export: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.ssim <= 1:
            raise UsageError(f"ssim is {self.ssim}, expected above 0, up to 1")
        for name, value in (("share", self.share), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise UsageError(f"{name} is {value}, expected between 0 and 1")
        if self.score == "drop":
            raise UsageError("score is 'drop'; tune for what it is the drop of ('auto'), drops then use that plan too")


@dataclass(frozen=True, slots=True)
class Sample:
    """A calibration image, float32 [1, C, H, W] (see :meth:`Explainer.check_image`), and its exact map."""

    image: FloatArray
    exact: HeatMap


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured times of a variant, in seconds.

    Attributes:
        once: fixed time of an explanation: baseline pass and uncovered outputs.
        counts: int64 [sizes], positions in a round, ascending from 0 to those of the whole map.
        seconds: float64 [sizes], time of a round of so many positions.
    """

    once: float
    counts: IntArray
    seconds: DoubleArray

    @property
    def of_map(self) -> float:
        """Predicted seconds of an explanation that evaluates as many positions as were timed at most: the whole map."""
        return self.once + float(self.seconds[-1])

    def of(self, outcome: Outcome) -> float:
        """Predicted seconds of an explanation."""
        return self.once + outcome.seconds + sum(self.of_round(count) for count in outcome.rounds)

    def of_round(self, count: int) -> float:
        """Predicted seconds of a round of ``count`` positions: linear interpolation and extrapolation."""
        slope = (self.seconds[-1] - self.seconds[-2]) / (self.counts[-1] - self.counts[-2])
        beyond = max(count - int(self.counts[-1]), 0) * slope
        return float(np.interp(count, self.counts, self.seconds) + beyond)


@dataclass(frozen=True, slots=True)
class Trial:
    """Outcomes of a family on some images: by image number, an outcome for each of its plans."""

    family: Family
    outcomes: Mapping[int, Sequence[Outcome]]
    costs: Costs

    def kept(self, number: int, goal: Goal, images: Sequence[int]) -> int:
        """Number of ``images`` on which plan ``number`` meets the goal."""
        return sum(self.outcomes[image][number].ssim >= goal.ssim for image in images)

    def seconds(self, number: int, images: Sequence[int]) -> float:
        """Predicted seconds of an explanation by plan ``number``, the mean over ``images``."""
        return statistics.fmean(self.costs.of(self.outcomes[image][number]) for image in images)

    def evaluated(self, number: int, images: Sequence[int]) -> float:
        """Positions that plan ``number`` evaluates, the mean over ``images``."""
        return statistics.fmean(self.outcomes[image][number].evaluated for image in images)

    def ran_on(self, images: Sequence[int]) -> bool:
        """Whether the trial has outcomes on all ``images``."""
        return all(image in self.outcomes for image in images)

    def joined(self, other: Trial) -> Trial:
        """The trial of the same family on the images of both."""
        return replace(self, outcomes={**self.outcomes, **other.outcomes})

    def most_careless(self, goal: Goal, images: Sequence[int], needed: float | None = None) -> int | None:
        """Number of the last plan that, like all more careful plans, meets the goal on its share (or ``needed``) of images."""
        needed = goal.share * len(images) if needed is None else needed
        last = None
        for number in range(len(self.family.plans)):
            if self.kept(number, goal, images) < needed - 1e-9:
                break
            last = number
        return last


Tell = Callable[[str, int, int], None]
"""Progress callback: receives the name of the step, the items done, and their total."""


def families() -> list[Family]:
    """All families of plans, for the exact variant."""
    smooth = [kriging(EVERYTHING.variant, step, length) for step in STEPS for length in CORRELATIONS]
    return smooth + drill_downs(EVERYTHING.variant)


def drill_downs(variant: str) -> list[Family]:
    """Drill-downs by a variant."""
    return [
        Family(
            f"drill-down, step {step}, {variant}",
            tuple(SamplingPlan(method="drill-down", variant=variant, step=step, share=share) for share in DRILL_DOWN_SHARES),
        )
        for step in DRILL_DOWN_STEPS
    ]


def families_for_export(variants: Sequence[str]) -> list[Family]:
    """Families that a map model carries out: drill-downs by the exact variant and ``variants``, and whole maps by the latter."""
    whole = [Family(f"every position, {name}", (SamplingPlan(variant=name),)) for name in variants]
    return whole + [family for name in (EVERYTHING.variant, *variants) for family in drill_downs(name)]


def kriging(variant: str, step: int, correlation: float, expected: Sequence[float] = EXPECTED) -> Family:
    """Kriging plans that end at the ``expected`` SSIMs, the most careful first."""
    plan = SamplingPlan(variant=variant, step=step, correlation=correlation, share=MOST_EVALUATED)
    plans = tuple(plan.model_copy(update={"expected_ssim": ssim}) for ssim in expected)
    return Family(f"kriging, step {step}, correlation {correlation:g}, {variant}", plans)


def from_most_careful(family: Family) -> Family:
    """The whole family of ``family``, which may have been made without its most careful plans."""
    if family.method != "kriging":
        return family
    plan = family.plans[0]
    return kriging(plan.variant, plan.step, plan.correlation)


def try_family(
    explainer: Explainer, family: Family, samples: Mapping[int, Sample], goal: Goal, costs: Costs, tell: Tell
) -> Trial:
    """Tries a family on ``samples``, by image number: simulated for the exact variant, run for others."""
    results = {}
    for done, (number, sample) in enumerate(samples.items()):
        tell(family.name, done, len(samples))
        results[number] = outcomes(family, sample.exact, _scores(explainer, family, sample, goal))
    return Trial(family, results, costs)


def _scores(explainer: Explainer, family: Family, sample: Sample, goal: Goal) -> Scores:
    variant = family.variant
    if variant == EVERYTHING.variant:
        return recorded(sample.exact)
    engine, grid = explainer.engines[variant], Grid(sample.exact.ys, sample.exact.xs)
    baseline = engine.baseline(sample.image, goal.fill, len(grid.positions))
    output, target = explainer.targets.scored(goal.score)[1], sample.exact.target
    column = explainer.targets.column(target, output)
    known = np.full(len(grid.positions), np.nan, np.float32)

    def scores(cells: IntArray) -> FloatArray:
        fresh = cells[np.isnan(known[cells])]  # plans of a family evaluate mostly the same cells
        if len(fresh):
            known[fresh] = engine.scores(baseline, grid.positions[fresh], output, column.of)
        return known[cells]

    return scores
