"""Maps of several targets, from a single evaluation of each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.targets import Column
from kcompiler.runtime.compiled import CompiledModel
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.explanation import Explanation, Interrupted, check_resumable, scores_so_far
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import Reporter
from kcompiler.runtime.request import Request

Targets = Sequence[int | str] | int | Literal["all"]


def explained_targets(model: CompiledModel, image: npt.ArrayLike, targets: Targets, request: Request) -> list[HeatMap]:
    """See :meth:`Explainer.explain_targets`."""
    if request.target is not None or request.quality != "exact" or request.budget is not None:
        raise UsageError("target, quality and budget do not apply to the maps of several targets")
    earlier = _by_target(request.resume)
    _check(targets, model.targets.count)
    explanation = Explanation(model, image, replace(request, resume=None), anytime=False)
    return _Several(explanation, _indices(explanation, targets), earlier).maps()


def _by_target(resume: HeatMap | Sequence[HeatMap] | None) -> dict[int, HeatMap]:
    maps = () if resume is None else (resume,) if isinstance(resume, HeatMap) else resume
    return {heat_map.target: heat_map for heat_map in maps}


def _check(targets: Targets, count: int) -> None:
    if isinstance(targets, int | np.integer) and not 1 <= targets <= count:
        raise UsageError(f"targets is {targets}, expected 1 to {count} of the largest outputs, 'all', or a list")
    if isinstance(targets, str) and targets != "all":
        raise UsageError(f"targets is {targets!r}, expected 'all', a number, or a list of indices or labels")


def _indices(explanation: Explanation, targets: Targets) -> list[int]:
    """The indices of the requested classes.

    Raises:
        UsageError: an unknown class, or a class without cells to reduce over.
    """
    classes, unoccluded = explanation.model.targets, explanation.unoccluded
    if isinstance(targets, str):
        return [int(index) for index in classes.seen(unoccluded)]
    if isinstance(targets, int | np.integer):
        seen = classes.seen(unoccluded)
        return [int(index) for index in seen[np.argsort(-unoccluded[seen], kind="stable")][: int(targets)]]
    indices = [classes.index(target) for target in targets]
    for index in indices:
        classes.check_seen(index, unoccluded)
    return indices


@dataclass(frozen=True, slots=True)
class _Columns:
    """Reads the scores of several classes, [n, classes]."""

    columns: tuple[Column, ...]

    def of(self, outputs: FloatArray) -> FloatArray:
        return np.stack([column.of(outputs) for column in self.columns], axis=-1)


class _Several:
    """Scores of several classes at all positions.

    Attributes:
        scores: float32 [positions, classes].
        evaluated: bool [positions, classes], where ``scores`` are evaluated.
    """

    def __init__(self, explanation: Explanation, indices: Sequence[int], earlier: dict[int, HeatMap]) -> None:
        self.explanation, self.indices = explanation, indices
        shape = len(explanation.grid.positions), len(indices)
        self.scores, self.evaluated = np.full(shape, np.nan, np.float32), np.zeros(shape, np.bool_)
        self.earlier = max((earlier[index].seconds for index in indices if index in earlier), default=0.0)
        plan, patch = explanation.exploration.plan, explanation.model.manifest.patch
        for column, index in enumerate(indices):
            if index in earlier:
                check_resumable(earlier[index], explanation.grid, index, patch, score=explanation.kind, plan=plan)
                self.scores[:, column] = scores_so_far(earlier[index])
                self.evaluated[:, column] = earlier[index].sampled.ravel()

    def maps(self) -> list[HeatMap]:
        """Evaluates the missing positions and returns the map of each class.

        Raises:
            Interrupted: on Ctrl-C; carries the maps so far.
        """
        explanation = self.explanation
        targets = explanation.model.targets
        keep = _Columns(tuple(targets.column(index, explanation.output) for index in self.indices)).of
        fresh = np.flatnonzero(~self.evaluated.all(axis=1))
        positions = explanation.grid.positions[fresh]
        reporter = Reporter(explanation.request.progress, len(fresh))
        try:
            for part, scores in explanation.run(positions, explanation.output, keep=keep):
                self.scores[fresh[part]], self.evaluated[fresh[part]] = scores, True
                reporter.advance(len(part))
            reporter.finish()
        except KeyboardInterrupt:
            raise Interrupted(*self._maps()) from None
        finally:
            reporter.close()
        return self._maps()

    def _maps(self) -> list[HeatMap]:
        shape = self.explanation.grid.shape
        return [
            self.explanation.map_of(
                index, self.scores[:, column].reshape(shape), self.evaluated[:, column].reshape(shape),
                complete=bool(self.evaluated[:, column].all()), earlier=self.earlier,
            )
            for column, index in enumerate(self.indices)
        ]  # fmt: skip
