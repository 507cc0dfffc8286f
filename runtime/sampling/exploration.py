"""One explanation under way: a sampling plan carried out on an engine, batch by batch, as far as it is asked to go."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.bundle.targets import Column
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inference.engine import Baseline, Engine
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.sampling.sampling import make_sampler


class Exploration:
    """The scores of a grid's positions, some of them evaluated, the others estimated.

    Attributes:
        plan: that is carried out.
        target: class that is scored; ``column`` says how its score is read from the output.
        scores: float32 [cells], what was evaluated; NaN elsewhere.
        evaluated: bool [cells].
        done: whether the plan has come to its end.
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
    ) -> None:
        """For class ``target``, in ``column`` of ``output``; ``known`` float32 [cells] are scores of an earlier run, else NaN."""
        self.engine, self.baseline, self.grid, self.plan = engine, baseline, grid, plan
        self._output, self.target, self.column = output, target, column
        cells = grid.shape[0] * grid.shape[1]
        self.scores: FloatArray = np.full(cells, np.nan, np.float32) if known is None else known.copy()
        self.evaluated: BoolArray = ~np.isnan(self.scores)
        self._sampler = make_sampler(plan, grid, engine.manifest.patch, unoccluded)
        self._round = np.empty(0, np.int64)
        self.done = False

    @property
    def most(self) -> int:
        """Positions that the plan evaluates at the most."""
        return self._sampler.most

    def run(self, deadline: float = np.inf) -> Iterator[int]:
        """Carries out the plan; yields after each batch how many positions it had. Can be left and run again.

        Args:
            deadline: time (of ``time.perf_counter``) from which on no further batch is started.
        """
        while len(fresh := self._next_round()):
            positions, keep = self.grid.positions[fresh], self.column.of
            for part, scores in self.engine.run(self.baseline, positions, self._output, deadline=deadline, keep=keep):
                self._tell(fresh[part], scores)
                yield len(part)
            if time.perf_counter() >= deadline:
                return
        self.done = True

    def _next_round(self) -> IntArray:
        """Cells to evaluate: what is left of the round under way, else the next one's; none when the plan is done."""
        while not len(fresh := self._round[~self.evaluated[self._round]]):
            self._round = self._sampler.next()
            if not len(self._round):
                break
            known = self._round[self.evaluated[self._round]]
            self._sampler.tell(known, self.scores[known])
        return fresh

    def _tell(self, cells: IntArray, scores: FloatArray) -> None:
        if not self.plan.everything and not np.isfinite(scores).all():
            raise UsageError(
                f"output {self.target} is not finite at some positions, which cannot be interpolated; ask for quality 'exact'"
            )
        self.scores[cells], self.evaluated[cells] = scores, True
        self._sampler.tell(cells, scores)

    def check(self, cells: IntArray, exact: Engine, fill: Fill) -> FloatArray:
        """Exact scores float32 [N] of ``cells``; they do not become part of the map."""
        same = exact is self.engine
        baseline = self.baseline if same else exact.baseline(self.baseline.image, fill, len(cells))
        return self.column.of(exact.evaluate_all(baseline, self.grid.positions[cells], self._output))

    def surface(self) -> FloatArray:
        """The map as far as it is known, float32 [rows, cols]: estimates between, NaN where the plan makes none."""
        # Scores of an earlier run that the plan has not asked for are not known to the sampler.
        drawn = self._sampler.surface()
        return np.where(self.evaluated, self.scores, drawn.ravel()).reshape(drawn.shape)
