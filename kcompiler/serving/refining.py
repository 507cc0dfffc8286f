"""A map that gets better while one watches, of which only as many states are drawn as pay."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.plans import EVERYTHING
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.explanation import Explanation
from kcompiler.runtime.inputs.positions import Grid, make_grid, stride_pair
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import Progress
from kcompiler.runtime.request import Request

INTERVAL = 0.1
"""Least seconds between two states of a map."""
SHARE = 0.2
"""Largest share of the time that estimating the rest of the map may take: it takes longer than many batches of a small model."""
MOST_MODELLED = 4096
"""Positions up to which the order that is good early is used: on larger grids its estimates take longer than a small model does.
They are made coarse by it first, and then fine, all positions in a row."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A map so far, or the final one.

    Attributes:
        heat_map: the map; what is not evaluated yet is estimated.
        progress: where the run is, with a forecast.
        final: whether nothing more comes.
    """

    heat_map: HeatMap
    progress: Progress
    final: bool


States = Generator[State | None]
"""States of a map; None after a batch that no new state is drawn of."""


def refined(explainer: Explainer, image: FloatArray, request: Request) -> States:
    """Makes a map, by a tuned plan or in an order in which it is good early."""
    image_size, patch = explainer.manifest.shape[1:], explainer.manifest.patch
    grid = make_grid(image_size, patch, request.stride, request.region)
    step = math.ceil(math.sqrt(grid.shape[0] * grid.shape[1] / MOST_MODELLED))
    if request.quality != "exact" or step <= 1:
        yield from _by_plan(explainer, image, request)
        return
    start, (y, x) = time.perf_counter(), stride_pair(request.stride)
    coarse: HeatMap | None = None
    for state in _by_plan(explainer, image, replace(request, stride=(y * step, x * step))):
        if state is None:
            yield None
            continue
        coarse = _on(grid, state.heat_map)
        done = not coarse.complete and state.final  # the time is over
        yield State(coarse, Progress(coarse.evaluated, coarse.scores.size, time.perf_counter() - start), final=done)
    if coarse is not None and coarse.complete:
        yield from _rest(explainer, image, request, coarse, start)


def _by_plan(explainer: Explainer, image: FloatArray, request: Request) -> States:
    """By the plan of the requested quality; exact maps in the order of explanations with a budget."""
    start = time.perf_counter()
    explanation = Explanation(explainer, image, request, anytime=True)
    exploration = explanation.exploration
    due = 0.0 if explanation.grid.shape[0] * explanation.grid.shape[1] <= MOST_MODELLED else math.inf

    def progress() -> Progress:
        return Progress(int(exploration.evaluated.sum()), exploration.most, time.perf_counter() - start)

    for _ in exploration.run(explanation.deadline):
        began = time.perf_counter()
        if began < due:
            yield None
            continue
        heat_map = _so_far(explanation, exploration.surface())
        due = began + max(INTERVAL, (time.perf_counter() - began) / SHARE)
        yield State(heat_map, progress(), final=False)
    *_, heat_map = explanation.maps(every_batch=False)  # all is evaluated that will be: this adds the caveats
    yield State(heat_map, progress(), final=True)


def _rest(explainer: Explainer, image: FloatArray, request: Request, coarse: HeatMap, start: float) -> States:
    """The positions that a coarse map lacks, in a row; until then they are estimated between its positions."""
    deadline = math.inf if request.budget is None else start + request.budget
    explanation = Explanation(explainer, image, replace(request, budget=None, resume=coarse), anytime=False)
    exploration, due = explanation.exploration, 0.0

    def progress() -> Progress:
        return Progress(int(exploration.evaluated.sum()), exploration.most, time.perf_counter() - start)

    def state(*, final: bool) -> State:
        evaluated = exploration.evaluated.reshape(explanation.grid.shape)
        scores = np.where(evaluated, exploration.surface(), coarse.scores)
        return State(_so_far(explanation, scores), progress(), final=final)

    for _ in exploration.run(deadline):
        began = time.perf_counter()
        if began < due:
            yield None
            continue
        due = began + INTERVAL
        yield state(final=False)
    if not exploration.done:
        yield state(final=True)
        return
    *_, heat_map = explanation.maps(every_batch=False)
    yield State(heat_map, progress(), final=True)


def _so_far(explanation: Explanation, scores: FloatArray) -> HeatMap:
    sampled = explanation.exploration.evaluated.reshape(explanation.grid.shape).copy()
    return explanation.map_of(explanation.target, scores, sampled, complete=False, earlier=0.0)


def _on(grid: Grid, coarse: HeatMap) -> HeatMap:
    """A map on a finer grid: linear between the coarse grid's positions, which are some of the finer one's."""
    along_x = np.stack([np.interp(grid.xs, coarse.xs, row) for row in coarse.scores])
    scores = np.stack([np.interp(grid.ys, coarse.ys, column) for column in along_x.T], axis=1).astype(np.float32)
    sampled = np.zeros(grid.shape, np.bool_)
    places = np.ix_(_places(coarse.ys, grid.ys), _places(coarse.xs, grid.xs))
    sampled[places], scores[places] = coarse.sampled, coarse.scores
    return replace(coarse, scores=scores, sampled=sampled, ys=grid.ys, xs=grid.xs, plan=EVERYTHING)


def _places(some: IntArray, corners: IntArray) -> IntArray:
    return np.searchsorted(corners, some)
