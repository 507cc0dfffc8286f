"""Samplers: they choose the positions of a grid to evaluate, and estimate the whole map from their scores.

A sampler chooses the cells of the grid to evaluate next, receives their scores, and estimates the map over all cells. It has no
access to the model, so a plan can be simulated on a recorded map without inference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.sampling.drill_down import Coarse, coarse_cells
from kcompiler.runtime.sampling.field import Field
from kcompiler.runtime.sampling.quality import WINDOW

LEAST_ROUND = 64
"""Least number of positions in a round: fewer do not fill a batch, and take up to 1.4 times as long each."""
PRIOR_WEIGHT = 0.0005
"""Weight of the mean surprise over all measured cells in the local amplitude, relative to a single measured cell's.

Midway between coarse cells, their weight is about the same. With 0.002, flat parts got the amplitude of a finding far away, and
an SSIM of 0.9 on all but one picture of each of five data sets took 12% more positions. A prior from wider surroundings (3 or 5
lengths) was no better.
"""
STABILISER = 0.03**2
"""SSIM's second constant, over the squared data range (Wang et al. 2004)."""
LIKELY = 4
"""Number of candidate cells prepared (:meth:`Field.expect`) per cell to choose; nearly all chosen cells were among them."""
MOST_MODELLED = 0.5
"""Share of measured cells above which the rest are evaluated at once: modelling them would take longer than it saves."""
MOST_BYTES = 1 << 29
"""Memory of the field above which the rest are evaluated at once, too."""


class Sampler(Protocol):
    """Chooses cells of a grid, round by round.

    Attributes:
        most: largest number of cells that it chooses.
    """

    most: int

    def next(self) -> IntArray:
        """Cells to evaluate next, int64 [N]; empty when the plan is done. :meth:`tell` must have received all earlier cells."""

    def tell(self, cells: IntArray, scores: FloatArray) -> None:
        """Receives the scores, float32 [N], of chosen ``cells``, int64 [N]."""

    def surface(self) -> FloatArray:
        """The current map, float32 [rows, cols]: the received scores, and estimates elsewhere."""


SAMPLERS: dict[str, Callable[[SamplingPlan, Grid, tuple[int, int], float], Sampler]] = {}
"""Constructors by method; they take a plan, a grid, the patch (height, width) and the score of the uncovered image."""


def sampler(method: str) -> Callable[[type], type]:
    """Registers the decorated class for ``method``."""

    def enter(cls: type) -> type:
        assert method not in SAMPLERS, f"two samplers for {method}"
        SAMPLERS[method] = cls
        return cls

    return enter


def make_sampler(plan: SamplingPlan, grid: Grid, patch: tuple[int, int], unoccluded: float) -> Sampler:
    """The sampler of a plan; a plan that evaluates every cell does so in a single round."""
    method = "all" if plan.everything else plan.method
    return SAMPLERS[method](plan, grid, patch, unoccluded)


@sampler("all")
class EveryCell:
    """Exact: evaluates all cells, in a single round."""

    def __init__(self, plan: SamplingPlan, grid: Grid, patch: tuple[int, int], unoccluded: float) -> None:
        self._scores = np.full(grid.shape, np.nan, np.float32)
        self.most, self._done = self._scores.size, False

    def next(self) -> IntArray:
        done, self._done = self._done, True
        return np.empty(0, np.int64) if done else np.arange(self.most)

    def tell(self, cells: IntArray, scores: FloatArray) -> None:
        self._scores.flat[cells] = scores

    def surface(self) -> FloatArray:
        return self._scores.copy()


@sampler("drill-down")
class DrillDown:
    """Adaptive drill-down: a coarse grid, refined around its most sensitive cells; other cells take the nearest coarse score.

    Source: Nakandala, Kumar, Papakonstantinou, SIGMOD 2019, section 4.2. ``plan.share`` is the share of coarse cells that
    are refined (the paper's drill-down fraction).
    """

    def __init__(self, plan: SamplingPlan, grid: Grid, patch: tuple[int, int], unoccluded: float) -> None:
        self._shape, self._unoccluded = grid.shape, unoccluded
        self._coarse = Coarse.of(grid.shape, plan.step, plan.share)
        self._scores = np.full(grid.shape[0] * grid.shape[1], np.nan, np.float32)
        self.most, self._rounds = self._coarse.most, 0

    def next(self) -> IntArray:
        self._rounds += 1
        if self._rounds == 1:
            return self._coarse.cells
        if self._rounds > 2:
            return np.empty(0, np.int64)
        sensitivity = self._unoccluded - self._scores[self._coarse.cells]
        refined = np.argsort(-sensitivity, kind="stable")[: self._coarse.refined]
        return np.flatnonzero(np.isin(self._coarse.owner, refined) & np.isnan(self._scores))

    def tell(self, cells: IntArray, scores: FloatArray) -> None:
        self._scores[cells] = scores

    def surface(self) -> FloatArray:
        nearest = self._scores[self._coarse.cells][self._coarse.owner]
        return np.where(np.isnan(self._scores), nearest, self._scores).reshape(self._shape)


@sampler("kriging")
class Kriging:
    """Kriging: a coarse grid, then rounds of the cells whose measurement is expected to raise the map's SSIM most.

    The map is modelled as a Gaussian process (:class:`Field`) whose amplitude varies over the map; the amplitude is estimated
    from the prediction errors nearby. SSIM weighs an error against the variance in its window, so of two equally uncertain
    cells the one in the flatter window matters more, until SSIM's stabiliser dominates. Sampling ends when the expected SSIM
    reaches ``plan.expected_ssim``, or ``plan.share`` of the cells are evaluated.
    """

    def __init__(self, plan: SamplingPlan, grid: Grid, patch: tuple[int, int], unoccluded: float) -> None:
        self._plan, self._shape, self._unoccluded = plan, grid.shape, unoccluded
        steps = [float(lines[1] - lines[0]) if len(lines) > 1 else 1.0 for lines in (grid.ys, grid.xs)]
        self._lengths = (plan.correlation * patch[0] / steps[0], plan.correlation * patch[1] / steps[1])
        cells = grid.shape[0] * grid.shape[1]
        self._field = Field(grid.shape, self._lengths)
        self._scores = np.full(cells, np.nan, np.float32)
        self.most = max(len(coarse_cells(grid.shape, plan.step)), round(plan.share * cells))
        self._round = max(LEAST_ROUND, round(plan.round_share * cells))

    @property
    def _received(self) -> IntArray:
        """Cells with scores, int64 [N]."""
        return np.flatnonzero(~np.isnan(self._scores))

    def next(self) -> IntArray:
        if not len(self._received):
            self._plan_cells(coarse_cells(self._shape, self._plan.step))
            return self._field.planned
        self._catch_up()
        done, cells = len(self._received), len(self._scores)
        enough = self._plan.expected_ssim < 1 and self.expected_ssim() >= self._plan.expected_ssim
        if done >= self.most or enough:
            return np.empty(0, np.int64)
        if done >= MOST_MODELLED * cells or self._field.bytes > MOST_BYTES:
            rest = np.flatnonzero(np.isnan(self._scores))
            return rest[np.argsort(-self._field.variance[rest], kind="stable")][: self.most - done]
        return self._most_useful(min(self._round, self.most - done))

    def tell(self, cells: IntArray, scores: FloatArray) -> None:
        self._scores[cells] = scores

    def surface(self) -> FloatArray:
        if np.isnan(self._scores[self._field.planned]).any():  # round incomplete: condition a new field on the received scores
            field = Field(self._shape, self._lengths)
            received = self._received
            field.start_from(float(self._scores[received].mean()) if len(received) else self._unoccluded)
            for cell in received:
                field.plan(int(cell))
                field.measure(float(self._scores[cell]))
        else:
            self._catch_up()
            field = self._field
        mean = field.mean.astype(np.float32)
        return np.where(np.isnan(self._scores), mean, self._scores).reshape(self._shape)

    def expected_ssim(self) -> float:
        """Expected SSIM of the current map with the exact map."""
        variance = self._windowed(self._field.variance * self._amplitude())
        return float(1.0 - (variance / (2 * self._contrast() + variance)).mean())

    def _plan_cells(self, cells: IntArray) -> None:
        # Shuffled: in row order each cell would be predicted from one side only, and the surprises would be of extrapolation.
        for cell in np.random.default_rng(0).permutation(cells):
            self._field.plan(int(cell))

    def _catch_up(self) -> None:
        """Conditions the field on the scores of the planned cells."""
        field = self._field
        pending = field.planned[len(field.measured) :]
        if not len(field.measured):
            field.start_from(float(self._scores[pending].mean()))
        for score in self._scores[pending]:
            field.measure(float(score))

    def _most_useful(self, count: int) -> IntArray:
        """Plans ``count`` cells greedily, each at the largest weighted variance that the cells planned before it leave."""
        field, before = self._field, len(self._field.planned)
        weight = self._amplitude() * self._windowed(1.0 / (2 * self._contrast()))
        unmeasured = np.isnan(self._scores)
        candidates = np.flatnonzero(unmeasured)
        if (likely := LIKELY * count) < len(candidates):
            candidates = candidates[np.argpartition(-(field.variance * weight)[candidates], likely)[:likely]]
        field.expect(candidates)
        for _ in range(count):
            cell = int(np.argmax(np.where(unmeasured, field.variance * weight, -1.0)))
            field.plan(cell)
            unmeasured[cell] = False
        return field.planned[before:]

    def _amplitude(self) -> DoubleArray:
        """Local variance of the process, float64 [cells]: a Gaussian-weighted mean of the surprises nearby."""
        from scipy.ndimage import gaussian_filter

        field = self._field
        surprises, counts = np.zeros(len(self._scores)), np.zeros(len(self._scores))
        surprises[field.measured] = field.surprises
        counts[field.measured] = 1.0
        surprise, count = (
            gaussian_filter(values.reshape(self._shape), self._lengths, mode="constant").ravel() for values in (surprises, counts)
        )
        result: DoubleArray = (surprise + PRIOR_WEIGHT * np.mean(field.surprises)) / (count + PRIOR_WEIGHT)
        return result

    def _contrast(self) -> DoubleArray:
        """Variance of the map in SSIM's window around each cell, plus half of SSIM's stabiliser, float64 [cells]."""
        mean = self._field.mean
        variance = np.maximum(self._windowed(mean * mean) - self._windowed(mean) ** 2, 0.0)
        result: DoubleArray = variance + STABILISER * np.ptp(mean) ** 2 / 2 + np.finfo(np.float32).tiny
        return result

    def _windowed(self, values: DoubleArray) -> DoubleArray:
        from scipy.ndimage import uniform_filter

        result: DoubleArray = uniform_filter(values.reshape(self._shape), min(WINDOW, *self._shape)).ravel()
        return result
