"""Simulates sampling plans on recorded maps: which positions they would evaluate, and the quality of their maps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.sampling.quality import ssim
from kcompiler.runtime.sampling.sampling import Kriging, make_sampler

Scores = Callable[[IntArray], FloatArray]
"""Returns the scores, float32 [N], of cells, int64 [N]."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The result of a plan on an image.

    Attributes:
        rounds: number of positions evaluated in each round.
        seconds: time of the sampler, without evaluation of positions.
        ssim: SSIM of the map with the exact map.
        surface: the map, float32 [rows, cols].
        sampled: which positions were evaluated, bool [rows, cols].
    """

    rounds: tuple[int, ...]
    seconds: float
    ssim: float
    surface: FloatArray
    sampled: BoolArray

    @property
    def evaluated(self) -> int:
        return sum(self.rounds)


@dataclass(frozen=True, slots=True)
class Family:
    """Plans that differ only in how careful they are: in ``expected_ssim`` for kriging, in ``share`` for drill-down.

    Attributes:
        name: names the common settings.
        plans: the most careful plan first.
    """

    name: str
    plans: tuple[SamplingPlan, ...]

    @property
    def variant(self) -> str:
        """Name of the variant that evaluates positions."""
        return self.plans[0].variant

    @property
    def method(self) -> str:
        return self.plans[0].method


def recorded(exact: HeatMap) -> Scores:
    """Scores from an exact map."""
    scores = exact.scores.ravel()
    return lambda cells: scores[cells]


def outcomes(family: Family, exact: HeatMap, scores: Scores) -> list[Outcome]:
    """The outcome of each plan of ``family`` on the image of an ``exact`` map; ``scores`` evaluates positions."""
    grid = Grid(exact.ys, exact.xs)
    if family.method == "kriging":
        return _from_shared_run(family.plans, exact, grid, scores)
    return [_from_own_run(plan, exact, grid, scores) for plan in family.plans]


def _from_own_run(plan: SamplingPlan, exact: HeatMap, grid: Grid, scores: Scores) -> Outcome:
    start, waited, rounds = time.perf_counter(), 0.0, []
    sampler, sampled = make_sampler(plan, grid, exact.patch, exact.unoccluded), np.zeros(grid.shape, np.bool_)
    while len(cells := sampler.next()):
        before = time.perf_counter()
        evaluated = scores(cells)
        waited += time.perf_counter() - before
        sampler.tell(cells, evaluated)
        rounds.append(len(cells))
        sampled.flat[cells] = True
    surface = sampler.surface()
    return Outcome(tuple(rounds), time.perf_counter() - start - waited, ssim(surface, exact.scores), surface, sampled)


def _from_shared_run(plans: Sequence[SamplingPlan], exact: HeatMap, grid: Grid, scores: Scores) -> list[Outcome]:
    """The outcomes of kriging plans from a single run of the most careful: the others are the same run, stopped earlier."""
    assert len({plan.model_copy(update={"expected_ssim": 1.0}) for plan in plans}) == 1, "they differ in where they end"
    careful = plans[0].model_copy(update={"expected_ssim": max(plan.expected_ssim for plan in plans)})
    sampler = Kriging(careful, grid, exact.patch, exact.unoccluded)
    results: list[Outcome | None] = [None] * len(plans)
    for outcome, expected in _after_each_round(sampler, exact, scores):
        for number, plan in enumerate(plans):
            if results[number] is None and (expected >= plan.expected_ssim or outcome.evaluated >= sampler.most):
                results[number] = outcome
    return [outcome for outcome in results if outcome is not None]


def _after_each_round(sampler: Kriging, exact: HeatMap, scores: Scores) -> Iterator[tuple[Outcome, float]]:
    """Runs ``sampler``; yields the outcome and the expected SSIM after each round."""
    rounds: list[int] = []
    sampled = np.zeros(exact.scores.shape, np.bool_)
    seconds, start = 0.0, time.perf_counter()
    while len(cells := sampler.next()):
        seconds += time.perf_counter() - start
        evaluated = scores(cells)
        start = time.perf_counter()
        sampler.tell(cells, evaluated)
        rounds.append(len(cells))
        sampled.flat[cells] = True
        surface, expected = sampler.surface(), sampler.expected_ssim()
        seconds += time.perf_counter() - start
        yield Outcome(tuple(rounds), seconds, ssim(surface, exact.scores), surface, sampled.copy()), expected
        start = time.perf_counter()
