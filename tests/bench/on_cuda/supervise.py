"""The processes that prepare and that measure, as their parent sees them: none outlasts its time, whatever happens in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.on_cuda.checkout import command

Hear = Callable[[str, object, str], None]
"""Called with each result of a section: its key, its value and a text of it."""
SLOWEST_END = 1.5
"""Seconds before the limit of a section at which it is asked to end by itself, at most."""
LEAST_CLOSING, CLOSING_SHARE = 1.0, 0.012
"""Seconds that the end of the run takes at least, and the share of the budget: runs with more time hold more memory."""
RESERVED = 2
"""Cores that preparation leaves to the process that measures."""
HEAVY = ("vgg16", "inception_v3")
"""Networks that take longest to compile, and get twice the cores."""


class Budget:
    """Seconds that the whole run may take, from its start."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start = seconds, time.monotonic()

    @property
    def used(self) -> float:
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Without what the end of the run takes: processes give back their memory, files are written."""
        return self.seconds - self.used - max(LEAST_CLOSING, CLOSING_SHARE * self.seconds)


@dataclass(slots=True)
class Outcome:
    """The end of a section.

    Attributes:
        state: "done"; "partial" where its time did not suffice; "failed"; "skipped"; "waiting" before it begins.
        why: what happened, empty if it is done.
        seconds: that it took.
        values: results by key.
        texts: the same for readers.
        traceback: of a failure.
    """

    state: str = "waiting"
    why: str = ""
    seconds: float = 0.0
    values: dict[str, object] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    traceback: str = ""


class Worker:
    """The process that measures, started with the first section and anew after one that did not end well."""

    def __init__(self, environment: Mapping[str, str], arguments: Sequence[object], log: Path) -> None:
        """``arguments`` are those of the worker's command line beside its connection; what it prints is added to ``log``."""
        self._environment, self._arguments, self._log = environment, arguments, log
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def run(self, section: str, limit: float, hear: Hear) -> Outcome:
        """Runs a section for at most ``limit`` seconds."""
        start = time.monotonic()
        connection = self._started()
        outcome = self._heard(connection, start + limit, hear, lambda: connection.send((section, _soft(limit))))
        outcome.seconds = time.monotonic() - start
        if outcome.why:
            self.stop()  # a device that failed once fails all later runs of a process
        return outcome

    def _heard(self, connection: Connection, end: float, hear: Hear, begin: Callable[[], None]) -> Outcome:
        try:
            begin()
            while connection.poll(max(end - time.monotonic(), 0)):
                kind, *rest = connection.recv()
                if kind == "value":
                    hear(*rest)
                else:
                    return Outcome(kind, *rest[:1], traceback="".join(rest[1:]))
        except (EOFError, OSError):
            code = self._process.wait(5) if self._process is not None else None
            return Outcome("failed", f"the process died (exit status {code})", traceback=_end_of(self._log))
        return Outcome("partial", "stopped at its time limit")

    def _started(self) -> Connection:
        if self._connection is None:
            self._connection, theirs = Pipe()
            line = command("worker", theirs.fileno(), *self._arguments)
            self._process = _begun(line, self._environment, log=self._log, pass_fds=[theirs.fileno()])
            theirs.close()
        return self._connection

    def stop(self) -> None:
        """Ends the process, at once."""
        if self._process is not None:
            _kill(self._process)
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


class Preparations:
    """Processes that export and compile on part of the cores each. A result is a path that appears when it is complete."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[object]], environment: Mapping[str, str]) -> None:
        """Starts the first of ``jobs``, command-line arguments by the name of a network, whose results lie in ``folder``."""
        self.folder, self._jobs, self._waiting = folder, jobs, list(jobs)
        self._environment = {**environment, "CUDA_VISIBLE_DEVICES": ""}  # compiling needs no GPU
        self._idle = _slices([1 + (name in HEAVY) for name in jobs])
        self._running: dict[str, tuple[subprocess.Popen[bytes], list[int]]] = {}
        self._ended: dict[str, int] = {}
        self.poll()

    def poll(self) -> None:
        """Starts jobs on cores that are idle."""
        for name, (process, _) in list(self._running.items()):
            if process.poll() is not None:
                self._ended[name] = process.returncode
                self._idle.append(self._running.pop(name)[1])
        while self._idle and self._waiting:
            cores, name = self._idle.pop(0), self._waiting.pop(0)
            line = command("prepare", self.folder, ",".join(map(str, cores)), *self._jobs[name])
            self._running[name] = _begun(line, self._environment, log=self.log(name)), cores

    def log(self, name: str) -> Path:
        """What a job prints."""
        return self.folder / f"{name}.log"

    def ready(self, name: str, result: str) -> bool:
        """Whether the job's result is there.

        Raises:
            RuntimeError: the job ended without it.
        """
        self.poll()
        if (self.folder / result).exists():
            return True
        if name in self._ended and not (self.folder / result).exists():
            said = _end_of(self.log(name)).strip().splitlines()
            raise RuntimeError(f"{result} was not prepared: {said[-1] if said else f'exit status {self._ended[name]}'}")
        return False

    def stop(self) -> None:
        self._waiting.clear()
        for process, _ in self._running.values():
            _kill(process)


def _slices(weights: Sequence[int]) -> list[list[int]]:
    """Cores for as many jobs as can run at the same time: by the weights, or two each where they do not suffice for all."""
    cores = sorted(os.sched_getaffinity(0))
    spare = cores[RESERVED:] if len(cores) > 2 * RESERVED else cores
    if len(spare) < 2 * len(weights):
        count = max(1, len(spare) // 2)
        return [spare[number::count] for number in range(count)]
    ends = [len(spare) * sum(weights[: number + 1]) // sum(weights) for number in range(len(weights))]
    return [spare[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _soft(limit: float) -> float:
    """Seconds after which a section of ``limit`` seconds is to end by itself."""
    return max(limit - SLOWEST_END, 0.8 * limit)


def _begun(
    line: Sequence[str], environment: Mapping[str, str], *, pass_fds: Sequence[int] = (), log: Path | None = None
) -> subprocess.Popen[bytes]:
    """A process in a session of its own, so that Ctrl-C reaches only its parent, which ends it."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(log.open("ab")) if log is not None else None
        settings: dict[str, Any] = {"stdout": stream, "stderr": stream, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(line, env=environment, pass_fds=pass_fds, start_new_session=True, **settings)


def _end_of(log: Path, most: int = 4000) -> str:
    """The last characters of a file."""
    return log.read_text(encoding="utf-8", errors="replace")[-most:]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that this one started, and what that started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
