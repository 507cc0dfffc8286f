"""The other end of the process of its own: starts it, gives it tasks with limits, and says why it ended where it did.

One process serves all tasks of this one, one after the other. It is started with the first, and anew after a task that ended
it; it ends with this process, however that ends, since its standard input closes.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kcompiler.passes.isolation import worker
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.foreign import ForeignFailure
from kcompiler.runtime.inference.sessions import NO_TELEMETRY, onnxruntime

SECONDS, SECONDS_PER_BYTE = 4.0, 1e-6
"""Processor time for a task: so long, and for each byte of the model and its weights."""
SECONDS_PER_NUMBER = 1e-7
"""Of a run, for each number of its images and each node of the model."""
PATIENCE = 30
"""Limit by the clock, as a multiple of that on processor time: others may use the machine, too."""
MEMORY, MEMORY_PER_BYTE = 2 << 30, 4
"""Memory to load a model in: so much, and for each byte of the model and its weights."""


class Ended(ForeignFailure):
    """A task took longer than its limit, or ended its process."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Processor time in seconds, and memory in bytes, of a task."""

    seconds: float
    memory: int

    @classmethod
    def of(cls, size: int) -> Limits:
        """To load a model that takes ``size`` bytes with its weights."""
        return cls(SECONDS + SECONDS_PER_BYTE * size, MEMORY + MEMORY_PER_BYTE * size)

    def running(self, numbers: int, nodes: int) -> Limits:
        """To run it as well, on images of so many ``numbers`` together: activations may take half of the machine's memory."""
        return Limits(self.seconds + SECONDS_PER_NUMBER * numbers * nodes, max(self.memory, _memory_of_machine() // 2))


def begin() -> None:
    """Starts the process, which loads its libraries meanwhile; the first task would, too.

    Raises:
        ProviderError: ONNX Runtime is not installed.
    """
    _shared(os.getpid()).begin()


def check(path: Path, limits: Limits) -> str:
    """What speaks against the model at ``path``: :func:`worker.checked`.

    Raises:
        ForeignFailure: it cannot be said.
    """
    return str(_call(worker.checked.__name__, (str(path),), limits))


def write_optimised(model: bytes, weights: Path, level: str, written: Path, inline_bytes: int, limits: Limits) -> None:
    """Writes ``model`` as ONNX Runtime optimises it: :func:`worker.optimised`. Weights go to ``written`` with the suffix .bin.

    Raises:
        ForeignFailure: ONNX Runtime cannot load it, or not within ``limits``.
    """
    data = written.with_suffix(".bin").name
    _call(worker.optimised.__name__, (model, str(weights.resolve()), level, str(written), data, inline_bytes), limits)


def run(
    model: bytes | Path,
    runs: Sequence[worker.Feeds],
    limits: Limits,
    *,
    names: Sequence[str] | None = None,
    weights: Path | None = None,
    threads: int = 1,
    bfloat16: Sequence[str] = (),
) -> list[list[AnyArray | None]]:
    """Outputs of the model for the feeds of each run: :func:`worker.outputs`.

    Raises:
        ForeignFailure: ONNX Runtime cannot load or run it, or not within ``limits``.
    """
    given = model if isinstance(model, bytes) else str(model)
    folder = str(weights.resolve()) if weights is not None else ""
    found: list[list[AnyArray | None]] = _call(
        worker.outputs.__name__, (given, folder, names, list(runs), threads, list(bfloat16)), limits
    )
    return found


def _call(task: str, arguments: Sequence[object], limits: Limits) -> Any:
    return _shared(os.getpid()).call(task, arguments, limits)


@cache
def _shared(owner: int) -> _Process:
    """That of the process ``owner``: a forked child has its own, and leaves this one as it is."""
    process = _Process()
    atexit.register(lambda: process.end() if os.getpid() == owner else None)
    return process


class _Process:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        with self._lock:
            self._started()

    def call(self, task: str, arguments: Sequence[object], limits: Limits) -> Any:
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            clock = threading.Timer(PATIENCE * limits.seconds, process.kill)
            clock.daemon = True  # this process does not wait for it, should an interrupt come before it can be cancelled
            try:
                clock.start()
                pickle.dump((task, tuple(arguments), limits.seconds, limits.memory), process.stdin, pickle.HIGHEST_PROTOCOL)
                process.stdin.flush()
                done, answer = pickle.load(process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                self.end()
                raise Ended(_why(process.returncode, limits)) from error
            except BaseException:  # an interrupt: the answer would be taken for that of the next task
                self.end()
                raise
            finally:
                clock.cancel()
        if not done:
            raise ForeignFailure(answer)
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._running is None or self._running.poll() is not None:
            self.end()
            if not _is_installed("onnxruntime"):
                onnxruntime()  # says what to install
            environment = {NO_TELEMETRY: "1", **os.environ}
            self._running = subprocess.Popen(
                [sys.executable, "-P", worker.__file__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        return self._running

    def end(self) -> None:
        """Kills the process, if there is one, and waits for its end."""
        if self._running is not None:
            self._running.kill()
            self._running.communicate()
            self._running = None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of an importer that forbids it
        return False


def _why(code: int | None, limits: Limits) -> str:
    """Why a process ended with exit code ``code``."""
    name = signal.Signals(-code).name if code is not None and code < 0 else ""
    if name in ("SIGKILL", "SIGXCPU"):
        return f"it takes more than {limits.seconds:.0f} s"
    ended = name or f"exit code {code}"
    return f"it ends the process that loads it ({ended}): a division that overflows, or more than {limits.memory / 1e9:.1f} GB"


def _memory_of_machine() -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
