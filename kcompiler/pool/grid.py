"""One picture's positions, shared out over workers: runs of the very batches that the driver would evaluate, so the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kcompiler.pool.crew import Crew, Opening
from kcompiler.pool.pool import Pool
from kcompiler.pool.worker import Shared, Stopping
from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.errors import WorkersLost
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.inference.engine import Engine, Keep
from kcompiler.runtime.inputs.fills import PatchFill, apart
from kcompiler.runtime.request import Run

PARTS_OF_A_WORKER = 8
"""Runs of batches that each worker gets of a round, in the mean: many enough that none waits long for the last."""
Scores = list[tuple[IntArray, FloatArray]]
"""Of batches: indices into the positions of a part, and what is kept of the outputs."""


@dataclass(frozen=True, slots=True, eq=False)
class Covered:
    """What a worker makes a baseline of.

    Attributes:
        variant: name of the variant that evaluates.
        image: float32 [1, C, H, W], uncovered.
        fill: what covers, see :func:`covering`.
        count: number of positions of the grid.
    """

    variant: str
    image: FloatArray
    fill: FloatArray | PatchFill
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A run of batches.

    Attributes:
        number: of the part.
        covered: the :class:`Covered` of the picture.
        batches: positions of each, int64 [n, 2]; of a fill that makes patches, those of groups that lie apart.
        of: number of batches that the driver would evaluate in this round.
        output: name of the output.
        keep: selects what is kept of a batch's outputs.
    """

    number: int
    covered: Shared
    batches: tuple[IntArray, ...]
    of: int
    output: str
    keep: Keep


@dataclass(frozen=True, slots=True)
class Evaluates:
    """Loads the bundle in a worker, which then evaluates parts."""

    opening: Opening

    def __call__(self, stopping: Stopping) -> Evaluating:
        return Evaluating(self.opening, stopping)


class Evaluating:
    """Evaluates parts; keeps the baseline of the last picture."""

    def __init__(self, opening: Opening, stopping: Stopping) -> None:
        self._explainer, self._stopping = opening.load(), stopping
        self._held: tuple[Shared, Engine, Baseline] | None = None

    def __call__(self, part: Part, lost: int) -> Scores:
        """The scores of a part; those so far, if it is to be left off."""
        engine, baseline = self._baseline(part.covered)
        positions, indices = np.concatenate(part.batches), _indices(part.batches)
        done: Scores = []
        for batch, scores in _evaluated(engine, baseline, positions, indices, part):
            done.append((batch, scores))
            if self._stopping():
                break
        return done

    def _baseline(self, shared: Shared) -> tuple[Engine, Baseline]:
        if self._held is None or self._held[0] != shared:
            self._held = None
            covered: Covered = shared.get()
            engine = self._explainer.engines[covered.variant]
            self._held = shared, engine, engine.baseline(covered.image, covered.fill, covered.count)
        return self._held[1:]


def _evaluated(
    engine: Engine, baseline: Baseline, positions: IntArray, indices: Sequence[IntArray], part: Part
) -> Iterator[tuple[IntArray, FloatArray]]:
    if baseline.patches is None:
        yield from engine.run_batches(baseline, positions, indices, part.output, of=part.of, keep=part.keep)
        return
    for group in indices:
        for batch, scores in engine.run(baseline, positions[group], part.output, keep=part.keep):
            yield group[batch], scores


def _indices(batches: Sequence[IntArray]) -> list[IntArray]:
    """Of each batch among all of them in a row."""
    return np.split(np.arange(sum(map(len, batches))), np.cumsum([len(batch) for batch in batches])[:-1])


class SpreadGrid:
    """Evaluates rounds of positions by the workers of a crew: the ``spread`` of a :class:`Request`."""

    def __init__(self, crew: Crew, say: Callable[[str], None]) -> None:
        """Starts no worker yet; :meth:`close` ends them."""
        self._pool: Pool[Part, Scores] = crew.pool(Evaluates(crew.opening), say)
        self.open, self.close = self._pool.open, self._pool.close

    def __call__(self, engine: Engine, baseline: Baseline, fill: FloatArray | PatchFill, count: int) -> Run:
        """What evaluates positions of a picture."""
        covered = self._pool.share(Covered(engine.variant.name, baseline.image, fill, count))

        def run(
            positions: IntArray, output: str, *, deadline: float = np.inf, keep: Keep
        ) -> Iterator[tuple[IntArray, FloatArray]]:
            batches = self._batches(engine, baseline, positions)
            if len(batches) < 2:  # too little to share: the driver has a batch of its own run on all its threads
                yield from engine.run(baseline, positions, output, deadline=deadline, keep=keep)
                return
            runs = _runs(batches, PARTS_OF_A_WORKER * self._pool.count)
            parts = (
                Part(number, covered, tuple(positions[batch] for batch in run), len(batches), output, keep)
                for number, run in enumerate(runs)
            )
            for finished in self._pool.map(parts, deadline):
                if finished.result is None:
                    raise WorkersLost(f"a part of the positions cannot be evaluated: {finished.lost}")
                whole = np.concatenate(runs[finished.task.number])
                for indices, scores in finished.result:
                    yield whole[indices], scores

        return run

    @staticmethod
    def _batches(engine: Engine, baseline: Baseline, positions: IntArray) -> list[IntArray]:
        """Indices of what cannot be divided: batches, or the groups of positions whose patches share a picture."""
        if baseline.patches is None:
            return engine.batches(positions)
        return list(apart(positions, engine.manifest.patch))


def _runs(batches: Sequence[IntArray], most: int) -> list[list[IntArray]]:
    """Contiguous runs of about the same number of batches, at most ``most``."""
    edges = np.linspace(0, len(batches), min(most, len(batches)) + 1).round().astype(int)
    return [list(batches[start:stop]) for start, stop in pairwise(edges)]
