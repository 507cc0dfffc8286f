"""Exact maps of calibration images, made and kept by the workers of a crew before ``kcompiler tune`` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import typer

from kcompiler.pool.crew import Crew, Opening
from kcompiler.pool.worker import Stopping
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.errors import WorkersLost
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.progress import Progress
from kcompiler.runtime.tuning.trials import Goal, Tell


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A map that is missing: of an image in the source's layout, to be kept as ``name``."""

    name: str
    image: FloatArray


def make_exact_maps(crew: Crew, images: Mapping[str, FloatArray], goal: Goal, folder: Path, tell: Tell) -> None:
    """Makes the exact maps of ``images``, by the name to keep each by in ``folder``.

    Raises:
        WorkersLost: workers are lost over an image again and again.
    """
    opens, say = MakesMaps(crew.opening, goal, folder.absolute()), partial(typer.echo, err=True)

    def wanted() -> Iterator[Wanted]:
        for number, (name, image) in enumerate(images.items()):
            tell(f"exact maps by {crew.backend.count} workers", number, len(images))
            yield Wanted(name, image)

    with crew.pool(opens, say) as pool:
        for finished in pool.map(wanted()):
            if finished.lost is not None:
                raise WorkersLost(f"the exact map {finished.task.name} cannot be made: {finished.lost}")
    recover(folder)


@dataclass(frozen=True, slots=True)
class MakesMaps:
    """Loads the bundle in a worker, which then makes exact maps and keeps them."""

    opening: Opening
    goal: Goal
    folder: Path

    def __call__(self, stopping: Stopping) -> MakingMaps:
        return MakingMaps(self.opening.load(), self.goal, self.folder, stopping)


@dataclass(frozen=True, slots=True)
class MakingMaps:
    """Makes an exact map and keeps it."""

    explainer: Explainer
    goal: Goal
    folder: Path
    stopping: Stopping

    def __call__(self, wanted: Wanted, lost: int) -> bool:
        goal = self.goal
        try:
            exact = self.explainer.explain(
                wanted.image, stride=goal.stride, target=goal.target, fill=goal.fill, score=goal.score, progress=self._check
            )
        except KeyboardInterrupt:
            return False
        exact.save(self.folder, wanted.name, force=True)
        return True

    def _check(self, progress: Progress) -> None:
        if self.stopping():
            raise KeyboardInterrupt
