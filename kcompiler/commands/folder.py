"""The explanation of many pictures: one progress over all, the next read meanwhile, and what fails listed at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import typer

from kcompiler.commands.explaining import Call, explain_picture
from kcompiler.commands.input_files import Shown
from kcompiler.commands.many import Outcome, outcome_of, outcomes
from kcompiler.commands.pictures import FAILED, Found, Job
from kcompiler.pool.crew import Crew
from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.explanation import check_request
from kcompiler.runtime.progress import Overall

SUFFIXES = (".json", ".txt")
"""Of the list of failures."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture that could not be explained, and why."""

    picture: str
    error: str


def explain_folder(call: Call, found: Found, out: Path, crew: Crew | None = None) -> list[Failure]:
    """Explains all pictures, and goes on where one cannot be; returns, and lists in ``out``, those that could not.

    ``crew`` are the workers that explain them; None explains them here.

    Raises:
        UsageError: a setting is out of range.
    """
    check_request(call.explainer, call.request)
    failures: list[Failure] = []
    try:
        done = _explain_all(call, found.jobs, failures) if crew is None else _by_workers(crew, call, found.jobs, failures)
    finally:
        _write_failures(out, failures)
        for folder in {job.folder for job in found.jobs}:  # of workers that were killed
            recover(folder)
    typer.echo(_summary(found, done, len(failures)))
    if failures:
        typer.echo(f"{len(failures)} failed: see {out / FAILED}.txt; the same call with --resume tries them again", err=True)
    return failures


def _explain_all(call: Call, jobs: Sequence[Job], failures: list[Failure]) -> int:
    """Explains the pictures; returns for how many there was anything to do, and appends what fails to ``failures``."""
    done = 0
    with Overall(len(jobs)) as overall, _read_ahead(call, jobs) as read:
        call = replace(call, progress=overall.within, say=overall.write)
        for job in jobs:
            outcome = outcome_of(partial(explain_picture, call, job, read), job)
            done += outcome.done
            _note(overall, job, outcome, failures)
    return done


def _by_workers(crew: Crew, call: Call, jobs: Sequence[Job], failures: list[Failure]) -> int:
    """:func:`_explain_all`, by the workers of a crew."""
    done = 0
    with Overall(len(jobs)) as overall:
        for job, outcome in outcomes(crew, call, jobs, partial(overall.write, error=True)):
            for text, error in outcome.lines:
                overall.write(text, error=error)
            done += outcome.done
            _note(overall, job, outcome, failures)
    return done


def _note(overall: Overall, job: Job, outcome: Outcome, failures: list[Failure]) -> None:
    """Counts a picture, and appends it to ``failures`` if it could not be explained."""
    if outcome.error is not None:
        failures.append(Failure(str(job.path), outcome.error))
        overall.write(f"{job.path}: FAILED: {outcome.error}", error=True)
    overall.next()


@contextmanager
def _read_ahead(call: Call, jobs: Sequence[Job]) -> Iterator[Callable[[Job], Shown]]:
    """A function that reads a picture, and then lets a thread read the next one."""
    following = dict(zip(jobs, [*jobs[1:], None], strict=True))
    waiting: dict[Job, Future[Shown]] = {}
    with ThreadPoolExecutor(1) as thread:

        def read(job: Job) -> Shown:
            ahead = waiting.pop(job, None)
            waiting.clear()
            if (after := following[job]) is not None:
                waiting[after] = thread.submit(call.read, after)
            return ahead.result() if ahead is not None else call.read(job)

        yield read


def _write_failures(out: Path, failures: Sequence[Failure]) -> None:
    """Lists failures for people and for programs; an earlier list goes."""
    if failures:
        rows = [asdict(failure) for failure in failures]
        text = "".join(f"{failure.picture}\t{failure.error}\n" for failure in failures)
        contents = {f"{FAILED}.txt": text.encode(), f"{FAILED}.json": json.dumps(rows, indent=1).encode()}
        replace_files(out, contents, force=True)
    elif _is_list(out / f"{FAILED}.json"):
        for suffix in SUFFIXES:
            (out / f"{FAILED}{suffix}").unlink(missing_ok=True)


def _is_list(path: Path) -> bool:
    """Whether a file is a list of failures, and not the record of a picture with that name."""
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), list)
    except (OSError, ValueError):
        return False


def _summary(found: Found, done: int, failed: int) -> str:
    parts = [f"{done} explained"]
    if complete := len(found.jobs) - done - failed:
        parts.append(f"{complete} complete already")
    if failed:
        parts.append(f"{failed} failed")
    if found.skipped:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.skipped.items()))
        parts.append(f"{sum(found.skipped.values())} files skipped that are no pictures ({kinds})")
    return "; ".join(parts)
