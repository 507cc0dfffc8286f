"""Runs cases in children, forked in batches, each with limits on time and memory, and says how each ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from kcompiler.runtime.errors import KCompilerError
from tests.fuzz.cases import Case, write
from tests.fuzz.kinds import KINDS

RIGHT, ERROR, TRACEBACK, HANG, CRASH = "right", "clean error", "traceback", "hang", "crash"
OUTCOMES = (RIGHT, ERROR, TRACEBACK, HANG, CRASH)
BATCH = 100
"""Cases for a child, unless one ends it."""
PATIENCE, IMPORTS = 12, 10.0
"""Limit by the clock over that on processor time; seconds that the imports of a batch may take beside."""
LONGEST = 2000
"""Characters that an error may have."""


@dataclass(frozen=True)
class Limits:
    """For a case.

    Attributes:
        seconds: of processor time; PATIENCE times as many by the clock, since others may use the machine, too.
        memory: bytes that each process may allocate.
    """

    seconds: float = 5.0
    memory: int = 2 << 30


@dataclass(frozen=True)
class Outcome:
    """How a case ended: one of OUTCOMES, why, and after how long."""

    name: str
    kind: str
    why: str = ""
    seconds: float = 0.0


def outcomes(kind: str, cases: Sequence[Case], limits: Limits) -> Iterator[Outcome]:
    """The outcome of each case, in order. One that takes too long is tried a second time, alone: the machine may be busy."""
    todo = list(cases)
    while todo:
        done = 0
        for outcome in _batch(kind, todo[:BATCH], limits):
            if outcome.kind == HANG:
                (outcome,) = _batch(kind, [todo[done]], limits)
            done += 1
            yield outcome
        todo = todo[done:]


def _batch(kind: str, cases: Sequence[Case], limits: Limits) -> Iterator[Outcome]:
    """Outcomes of cases in a child, up to the first that ends it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(kind, cases, limits, theirs))
    child.start()
    theirs.close()
    try:
        for name, _ in cases:
            start = time.perf_counter()
            if not _answers(ours, child.pid, limits.seconds + (IMPORTS if name == cases[0][0] else 0)):
                yield Outcome(name, HANG, f"no answer after {time.perf_counter() - start:.1f} s", time.perf_counter() - start)
                return
            try:
                outcome = Outcome(**json.loads(ours.recv()))
            except EOFError:
                child.join()
                yield Outcome(name, CRASH, f"the process ended with {_ended(child.exitcode)}", time.perf_counter() - start)
                return
            yield outcome
    finally:
        _end(child)
        ours.close()


def _answers(pipe: Connection, group: int | None, seconds: float) -> bool:
    """Whether an answer comes before a group of processes has used so much processor time, or the clock has run out."""
    start, used = time.perf_counter(), _processor_time(group)
    while not pipe.poll(0.5):
        if _processor_time(group) - used > seconds or time.perf_counter() - start > PATIENCE * seconds:
            return False
    return True


def _processor_time(group: int | None) -> float:
    """Seconds that the processes of a group that are there have used; 0 where the system does not tell."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # of state, parent, group, ...
        except OSError:  # it ended
            continue
        ticks += (int(fields[11]) + int(fields[12])) * (int(fields[2]) == group)
    return ticks / os.sysconf("SC_CLK_TCK")


def _ended(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _end(child: multiprocessing.process.BaseProcess) -> None:
    """Ends a child and what it started: they are a process group of their own."""
    if child.is_alive() and child.pid is not None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:  # before it made its group
            child.kill()
    child.join()


def _child(kind: str, cases: Sequence[Case], limits: Limits, to: Connection) -> None:
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    import onnxruntime  # noqa: F401  its import is no part of a case

    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    for name, files in cases:
        with tempfile.TemporaryDirectory(prefix="fuzzed-") as folder:
            write(files, Path(folder))
            start = time.process_time()
            ended, why = _attempt(kind, Path(folder))
            seconds = time.process_time() - start
        if seconds > limits.seconds:
            ended, why = HANG, f"{seconds:.1f} s: {ended} {why}"
        to.send(json.dumps(asdict(Outcome(name, ended, why[-4000:], seconds))))


def _attempt(kind: str, folder: Path) -> tuple[str, str]:
    """How an attempt ended, and why."""
    try:
        KINDS[kind].attempt(folder)
    except KCompilerError as error:
        told = str(error)
        bad = "\n" in told or len(told) > LONGEST or "defect of kcompiler" in told
        return (TRACEBACK, f"an error of {len(told)} characters: {told}") if bad else (ERROR, told)
    except BaseException:
        return TRACEBACK, traceback.format_exc()
    return RIGHT, ""
