"""Runs a sampling plan on an engine, batch by batch; the run can stop at a deadline and go on later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.bundle.targets import Column
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.request import Run
from kcompiler.runtime.sampling.sampling import make_sampler


class Exploration:
    """The scores of a grid's positions: evaluated at some, estimated at the others.

    Attributes:
        plan: the sampling plan.
        target: index of the scored class; ``column`` reads its score from the output.
        scores: float32 [cells], evaluated scores; NaN elsewhere.
        evaluated: bool [cells], where the model was evaluated.
        done: whether the plan has run to its end.
    """

    def __init__(
        self,
        engine: Engine,
        baseline: Baseline,
        grid: Grid,
        plan: SamplingPlan,
        *,
        output: str,
        target: int,
        column: Column,
        unoccluded: float,
        known: FloatArray | None = None,
        run: Run | None = None,
    ) -> None:
        """Evaluates nothing yet. ``column`` reads the score of class ``target`` from the output named ``output``.

        ``known``, float32 [cells], holds the scores of an earlier run, and NaN where it has none. ``run`` evaluates positions;
        None has the engine do it.
        """
        self.engine, self.baseline, self.grid, self.plan = engine, baseline, grid, plan
        self._run: Run = partial(engine.run, baseline) if run is None else run
        self._output, self.target, self.column = output, target, column
        cells = grid.shape[0] * grid.shape[1]
        self.scores: FloatArray = np.full(cells, np.nan, np.float32) if known is None else known.copy()
        self.evaluated: BoolArray = ~np.isnan(self.scores)
        self._sampler = make_sampler(plan, grid, engine.manifest.patch, unoccluded)
        self._round = np.empty(0, np.int64)
        self.done = False

    @property
    def most(self) -> int:
        """Largest number of positions that the plan evaluates."""
        return self._sampler.most

    def run(self, deadline: float = np.inf) -> Iterator[int]:
        """Runs the plan; yields the number of positions after each batch. A later call goes on where this one stopped.

        Args:
            deadline: time (of ``time.perf_counter``) after which no further batch starts.
        """
        while len(fresh := self._next_round()):
            positions, keep = self.grid.positions[fresh], self.column.of
            for part, scores in self._run(positions, self._output, deadline=deadline, keep=keep):
                self._tell(fresh[part], scores)
                yield len(part)
            if time.perf_counter() >= deadline:
                return
        self.done = True

    def _next_round(self) -> IntArray:
        """Cells to evaluate, int64 [N]: the rest of the current round, or else the next round; empty when the plan is done."""
        while not len(fresh := self._round[~self.evaluated[self._round]]):
            self._round = self._sampler.next()
            if not len(self._round):
                break
            resumed = self._round[self.evaluated[self._round]]
            self._sampler.tell(resumed, self.scores[resumed])
        return fresh

    def _tell(self, cells: IntArray, scores: FloatArray) -> None:
        if not self.plan.everything and not np.isfinite(scores).all():
            raise UsageError(
                f"output {self.target} is not finite at some positions, which cannot be interpolated; ask for quality 'exact'"
            )
        self.scores[cells], self.evaluated[cells] = scores, True
        self._sampler.tell(cells, scores)

    def check(self, cells: IntArray, exact: Engine, fill: Fill) -> FloatArray:
        """Exact scores, float32 [N], of ``cells``; does not add them to the map."""
        same = exact is self.engine
        baseline = self.baseline if same else exact.baseline(self.baseline.image, fill, len(cells))
        return self.column.of(exact.evaluate_all(baseline, self.grid.positions[cells], self._output))

    def surface(self) -> FloatArray:
        """The current map, float32 [rows, cols]: estimates where not evaluated, NaN where the plan makes no estimate."""
        # The sampler does not have scores of an earlier run at positions that it has not chosen yet.
        surface = self._sampler.surface()
        return np.where(self.evaluated, self.scores, surface.ravel()).reshape(surface.shape)
