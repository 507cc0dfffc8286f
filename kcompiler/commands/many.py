"""The explanation of many pictures by the workers of a crew: each reads, explains and writes pictures of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from kcompiler.commands.explaining import Call, explain_picture
from kcompiler.commands.pictures import Job
from kcompiler.pool.crew import Crew, Opening
from kcompiler.pool.worker import Stopping
from kcompiler.runtime.errors import ImageError, MachineError, UsageError
from kcompiler.runtime.progress import Progress

FAILURES = (ImageError, UsageError, MachineError, OSError)
"""What may be wrong with one picture, while others can be explained."""
OWN = frozenset(("explainer", "progress", "say"))
"""Attributes of a call that each worker has of its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a picture.

    Attributes:
        done: whether there was anything to do, and it was done.
        error: why it could not be explained; None if it could.
        lines: what was said of it, and whether each line tells of an error.
    """

    done: bool = False
    error: str | None = None
    lines: tuple[tuple[str, bool], ...] = ()


def outcome_of(explain: Callable[[], bool], job: Job) -> Outcome:
    """Explains a picture; that it cannot be explained is an outcome, too."""
    try:
        return Outcome(done=explain())
    except FAILURES as error:
        return Outcome(error=str(error).removeprefix(f"{job.path}: "))


def outcomes(crew: Crew, call: Call, jobs: Sequence[Job], say: Callable[[str], None]) -> Iterator[tuple[Job, Outcome]]:
    """Has the pictures explained by workers; yields the outcome of each, in the order that they end in."""
    given = {absolute(job): job for job in jobs}
    settings = {each.name: getattr(call, each.name) for each in fields(call) if each.name not in OWN}
    with crew.pool(Explains(crew.opening, settings), say) as pool:
        for finished in pool.map(given):
            outcome = finished.result if finished.result is not None else Outcome(error=finished.lost)
            yield given[finished.task], outcome


def absolute(job: Job) -> Job:
    """With paths that hold in whatever folder a worker runs."""
    return replace(job, path=job.path.absolute(), folder=job.folder.absolute())


@dataclass(frozen=True, slots=True)
class Explains:
    """Loads the bundle in a worker, which then explains pictures by the settings of a call."""

    opening: Opening
    settings: Mapping[str, Any]

    def __call__(self, stopping: Stopping) -> Explaining:
        return Explaining(Call(self.opening.load(), **self.settings), stopping)


@dataclass(frozen=True, slots=True)
class Explaining:
    """Explains a picture and writes its results; leaves off, and keeps what it has, when the call is interrupted."""

    call: Call
    stopping: Stopping

    def __call__(self, job: Job, lost: int) -> Outcome:
        if self.stopping():
            return Outcome()
        said, call = _Said(), self.call
        # A worker that was lost may have written the map before it could say so.
        resume = call.resume or (lost > 0 and not call.force)
        call = replace(call, say=said, progress=self._check, resume=resume)
        try:
            outcome = outcome_of(lambda: explain_picture(call, job), job)
        except KeyboardInterrupt:
            return Outcome(lines=tuple(said.lines))
        return replace(outcome, lines=tuple(said.lines), done=outcome.done or (lost > 0 and outcome.error is None))

    def _check(self, progress: Progress) -> None:
        if self.stopping() and progress.done < progress.total:
            raise KeyboardInterrupt


@dataclass(slots=True)
class _Said:
    """Keeps lines, to be printed by who called."""

    lines: list[tuple[str, bool]] = field(default_factory=list)

    def __call__(self, text: str, *, error: bool = False) -> None:
        self.lines.append((text, error))
