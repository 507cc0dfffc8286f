"""Which positions of a grid to evaluate, and the whole map from those: sampling plans.

A sampler says which cells to evaluate next, is told their scores, and draws the map of all cells from what it knows. It
neither runs a model nor knows one, so a plan can be tried on a recorded map at no cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.sampling.field import Field
from kcompiler.runtime.sampling.quality import WINDOW

LEAST_ROUND = 64
"""Positions of a round at the least: fewer would not fill a batch, and take up to 1.4 times as long each."""
PRIOR_WEIGHT = 0.0005
"""Weight of the mean surprise of all cells where none nearby was measured, over that of one measured cell.

Between coarse cells neighbours weigh about as much. With 0.002 calm parts were taken for as restless as a finding far away, and
for an SSIM of 0.9 on all but one picture of each of five data sets 12% more positions were evaluated. A prior from
wider surroundings (3 or 5 lengths) was no better.
"""
STABILISER = 0.03**2
"""SSIM's second constant, over the squared data range (Wang et al. 2004)."""
LIKELY = 4
"""Cells that are expected to be chosen, over those that will be: nearly all of these were among them."""
MOST_MODELLED = 0.5
"""Share of the cells from which on the rest is evaluated without asking which first: modelling would cost more than it saves."""
MOST_BYTES = 1 << 29
"""Memory of the model from which on the same holds."""


class Sampler(Protocol):
    """Chooses cells of a grid, round by round.

    Attributes:
        most: cells that it asks for at the most.
    """

    most: int

    def next(self) -> IntArray:
        """Cells to evaluate next, int64 [N]; none when the plan is done. Each must be told before the next are asked for."""

    def tell(self, cells: IntArray, scores: FloatArray) -> None:
        """The scores float32 [N] of ``cells`` that were asked for."""

    def surface(self) -> FloatArray:
        """The whole map as far as it is known, float32 [rows, cols]; scores that were told are in it as they are."""


SAMPLERS: dict[str, Callable[[SamplingPlan, Grid, tuple[int, int], float], Sampler]] = {}
"""By method: made for a plan, a grid, the patch (height, width) and the score of the uncovered image."""


def sampler(method: str) -> Callable[[type], type]:
    """Enters the decorated class into the table for ``method``."""

    def enter(made: type) -> type:
        assert method not in SAMPLERS, f"two samplers for {method}"
        SAMPLERS[method] = made
        return made

    return enter


def make_sampler(plan: SamplingPlan, grid: Grid, patch: tuple[int, int], unoccluded: float) -> Sampler:
    """The sampler for a plan; one that evaluates every cell at once where the plan leaves none out."""
    method = "all" if plan.everything else plan.method
    return SAMPLERS[method](plan, grid, patch, unoccluded)


def coarse_lines(count: int, step: int) -> IntArray:
    """Every ``step``-th line of ``count``, and the last one."""
    return np.unique(np.append(np.arange(0, count, step), count - 1))


def coarse_cells(shape: tuple[int, int], step: int) -> IntArray:
    """Cells of the coarse grid, int64 [N], row by row."""
    rows, cols = (coarse_lines(count, step) for count in shape)
    return (rows[:, None] * shape[1] + cols).ravel()


@sampler("all")
class EveryCell:
    """Exact: all cells, in one round."""

    def __init__(self, plan: SamplingPlan, grid: Grid, patch: tuple[int, int], unoccluded: float) -> None:
        self._scores = np.full(grid.shape, np.nan, np.float32)
        self.most, self._asked = self._scores.size, False

    def next(self) -> IntArray:
        asked, self._asked = self._asked, True
        return np.empty(0, np.int64) if asked else np.arange(self.most)

    def tell(self, cells: IntArray, scores: FloatArray) -> None:
        self._scores.flat[cells] = scores

    def surface(self) -> FloatArray:
        return self._scores.copy()


@sampler("drill-down")
class DrillDown:
    """Adaptive drill-down: a coarse grid held constant around its cells, the most sensitive of them evaluated cell by cell.

    Source: Nakandala, Kumar, Papakonstantinou, SIGMOD 2019, section 4.2. ``plan.share`` is the share of coarse cells that
    are refined (the paper's drill-down fraction).
    """

    def __init__(self, plan: SamplingPlan, grid: Grid, patch: tuple[int, int], unoccluded: float) -> None:
        self._plan, self._shape, self._unoccluded = plan, grid.shape, unoccluded
        rows, cols = (coarse_lines(count, plan.step) for count in grid.shape)
        self._coarse = coarse_cells(grid.shape, plan.step)
        nearest = [np.abs(np.arange(count)[:, None] - lines).argmin(axis=1)
                   for count, lines in zip(grid.shape, (rows, cols), strict=True)]  # fmt: skip
        self._owner = (nearest[0][:, None] * len(cols) + nearest[1]).ravel()
        self._scores = np.full(grid.shape[0] * grid.shape[1], np.nan, np.float32)
        refined = np.sort(np.bincount(self._owner))[::-1][: round(plan.share * len(self._coarse))]
        self.most = int(len(self._coarse) + np.maximum(refined - 1, 0).sum())
        self._rounds = 0

    def next(self) -> IntArray:
        self._rounds += 1
        if self._rounds == 1:
            return self._coarse
        if self._rounds > 2:
            return np.empty(0, np.int64)
        sensitivity = self._unoccluded - self._scores[self._coarse]
        refined = np.argsort(-sensitivity, kind="stable")[: round(self._plan.share * len(self._coarse))]
        return np.flatnonzero(np.isin(self._owner, refined) & np.isnan(self._scores))

    def tell(self, cells: IntArray, scores: FloatArray) -> None:
        self._scores[cells] = scores

    def surface(self) -> FloatArray:
        held = self._scores[self._coarse][self._owner]
        return np.where(np.isnan(self._scores), held, self._scores).reshape(self._shape)


@sampler("kriging")
class Kriging:
    """A coarse grid, then rounds of the cells whose measurement is expected to raise the map's SSIM most.

    The map is a smooth field (:class:`Field`) whose amplitude varies from place to place, as the errors of its own
    predictions show. SSIM compares windows, each error against the variance of its window, so of two equally uncertain
    places the flatter one matters more, down to where SSIM's stabiliser takes over. Ends when the expected SSIM reaches
    ``plan.expected_ssim``, or ``plan.share`` of the cells are evaluated.
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
    def _told(self) -> IntArray:
        return np.flatnonzero(~np.isnan(self._scores))

    def next(self) -> IntArray:
        if not len(self._told):
            self._plan_cells(coarse_cells(self._shape, self._plan.step))
            return self._field.planned
        self._catch_up()
        done, cells = len(self._told), len(self._scores)
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
        if np.isnan(self._scores[self._field.planned]).any():  # cut short: the field of what is there
            field = Field(self._shape, self._lengths)
            told = self._told
            field.start_from(float(self._scores[told].mean()) if len(told) else self._unoccluded)
            for cell in told:
                field.plan(int(cell))
                field.measure(float(self._scores[cell]))
        else:
            self._catch_up()
            field = self._field
        mean = field.mean.astype(np.float32)
        return np.where(np.isnan(self._scores), mean, self._scores).reshape(self._shape)

    def expected_ssim(self) -> float:
        """Of the map as it is known now."""
        variance = self._windowed(self._field.variance * self._amplitude())
        return float(1.0 - (variance / (2 * self._contrast() + variance)).mean())

    def _plan_cells(self, cells: IntArray) -> None:
        # Shuffled: in order, each cell would be predicted from one side only, and the surprises would be of that.
        for cell in np.random.default_rng(0).permutation(cells):
            self._field.plan(int(cell))

    def _catch_up(self) -> None:
        """Conditions the field on the planned cells that have been told by now."""
        field = self._field
        pending = field.planned[len(field.measured) :]
        if not len(field.measured):
            field.start_from(float(self._scores[pending].mean()))
        for score in self._scores[pending]:
            field.measure(float(score))

    def _most_useful(self, count: int) -> IntArray:
        """Plans ``count`` cells, each where the error that remains after the others weighs most."""
        field, before = self._field, len(self._field.planned)
        weight = self._amplitude() * self._windowed(1.0 / (2 * self._contrast()))
        open_cells = np.isnan(self._scores)
        promising = np.flatnonzero(open_cells)
        if (likely := LIKELY * count) < len(promising):
            promising = promising[np.argpartition(-(field.variance * weight)[promising], likely)[:likely]]
        field.expect(promising)
        for _ in range(count):
            cell = int(np.argmax(np.where(open_cells, field.variance * weight, -1.0)))
            field.plan(cell)
            open_cells[cell] = False
        return field.planned[before:]

    def _amplitude(self) -> DoubleArray:
        """Variance of the field's increments around every cell, from how wrong its predictions were nearby."""
        field = self._field
        surprises, counts = np.zeros(len(self._scores)), np.zeros(len(self._scores))
        surprises[field.measured] = field.surprises
        counts[field.measured] = 1.0
        near = [gaussian_filter(one.reshape(self._shape), self._lengths, mode="constant").ravel() for one in (surprises, counts)]
        result: DoubleArray = (near[0] + PRIOR_WEIGHT * np.mean(field.surprises)) / (near[1] + PRIOR_WEIGHT)
        return result

    def _contrast(self) -> DoubleArray:
        """Variance of the scores in SSIM's window around every cell, and half of SSIM's stabiliser."""
        mean = self._field.mean
        variance = np.maximum(self._windowed(mean * mean) - self._windowed(mean) ** 2, 0.0)
        result: DoubleArray = variance + STABILISER * np.ptp(mean) ** 2 / 2 + np.finfo(np.float32).tiny
        return result

    def _windowed(self, values: DoubleArray) -> DoubleArray:
        result: DoubleArray = uniform_filter(values.reshape(self._shape), min(WINDOW, *self._shape)).ravel()
        return result
