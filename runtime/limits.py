"""Runs a function in a process of its own, with limits on time and memory: a bundle from a stranger may compute for ever.

A process, because a run of ONNX Runtime can be told to stop only between two operators, loading a model not at all, and an
operator that asks for all memory ends the process that asks.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from kcompiler.runtime.errors import LimitExceeded, UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.maps.heatmap import HeatMap

Result = TypeVar("Result")
GRACE = 2.0
"""Seconds that a process has to clean up, once it was told to end."""
LEAST_MEMORY = 1 << 28
"""Python, NumPy and ONNX Runtime take about half of it."""


def within_limits(
    function: Callable[..., Result],
    *arguments: Any,
    max_seconds: float | None = None,
    max_memory: int | None = None,
    **named: Any,
) -> Result:
    """``function`` of what is given, which is run in a new process.

    Args:
        function: of a module that can be imported; what it takes and returns can be pickled.
        arguments, named: what it takes.
        max_seconds: by the clock, from the start of the process; None is no limit.
        max_memory: bytes that the process may allocate, Linux only; None is no limit. Files that are mapped do not count.

    Raises:
        LimitExceeded: the function took more, or ended the process.
        UsageError: a limit is out of range, or this system cannot hold it.
    """
    _check(max_seconds, max_memory)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, max_seconds, max_memory, function, arguments, named))
    process.start()
    theirs.close()
    try:
        if not ours.poll(max_seconds):
            raise LimitExceeded(f"took more than {max_seconds:g} s (--max-seconds); it was ended")
        done, answer = ours.recv()
        process.join(GRACE)
    except EOFError as error:
        process.join()
        raise LimitExceeded(_ended(process.exitcode, max_memory)) from error
    except KeyboardInterrupt:  # the process has it, too, and keeps what it can
        process.join(GRACE)
        raise
    finally:
        _end(process)
        ours.close()
    if done:
        result: Result = answer
        return result
    if isinstance(answer, MemoryError):
        raise LimitExceeded(_beyond(max_memory)) from answer
    raise answer


def explain_within(
    bundle: str | Path,
    image: str | Path | npt.ArrayLike,
    *,
    max_seconds: float | None = None,
    max_memory: int | None = None,
    load: dict[str, Any] | None = None,
    **settings: Any,
) -> HeatMap:
    """The heat map of an image by a bundle that nobody answers for: loaded, and run, in a process of its own.

    Args:
        bundle: path of a bundle.
        image: path of a picture, or an array as :meth:`Explainer.explain` takes it.
        max_seconds, max_memory: see :func:`within_limits`.
        load: settings of :func:`kcompiler.load`.
        settings: those of :meth:`Explainer.explain`.

    Raises:
        LimitExceeded: it takes more than it may, or ends the process.
        KCompilerError: what loading and explaining raise.
    """
    arguments = Path(bundle).absolute(), image, load or {}, settings
    with naming(bundle):
        return within_limits(_explained, *arguments, max_seconds=max_seconds, max_memory=max_memory)


@contextmanager
def naming(bundle: object) -> Iterator[None]:
    """Says whose limit it is that was exceeded."""
    try:
        yield
    except LimitExceeded as error:
        raise LimitExceeded(f"{bundle}: {error}") from error


def _explained(bundle: Path, image: str | Path | npt.ArrayLike, load: dict[str, Any], settings: dict[str, Any]) -> HeatMap:
    with Explainer(bundle, **load).open() as explainer:
        tensor = explainer.read_image(image).tensor if isinstance(image, (str, Path)) else image
        return explainer.explain(tensor, **settings)


def _check(max_seconds: float | None, max_memory: int | None) -> None:
    if max_seconds is not None and not 0 < max_seconds < math.inf:
        raise UsageError(f"max_seconds is {max_seconds}, expected a number above 0")
    if max_memory is None:
        return
    if not hasattr(os, "sched_getaffinity"):  # Linux alone counts what a process allocates
        raise UsageError("max_memory: this system does not limit the memory of a process; leave it out")
    if max_memory < LEAST_MEMORY:
        raise UsageError(f"max_memory is {max_memory} bytes, expected at least {LEAST_MEMORY}")


def _run(
    to: Connection,
    max_seconds: float | None,
    max_memory: int | None,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    """Entry point of the process."""
    if max_seconds is not None and hasattr(signal, "setitimer"):  # the system's own, should the parent be gone by then
        signal.setitimer(signal.ITIMER_REAL, max_seconds + 3 * GRACE)
    if max_memory is not None:
        resource = importlib.import_module("resource")  # not on Windows
        resource.setrlimit(resource.RLIMIT_DATA, (max_memory, max_memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = True, function(*arguments, **named)
    except BaseException as error:
        answer = False, error
    to.send(answer)


def _end(process: SpawnProcess) -> None:
    """Ends a process that still runs, however it takes it."""
    if process.is_alive():
        process.terminate()
        process.join(GRACE)
    if process.is_alive():
        process.kill()
    process.join()
    process.close()


def _ended(code: int | None, max_memory: int | None) -> str:
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return f"ended its process ({name}); {_beyond(max_memory)}"


def _beyond(max_memory: int | None) -> str:
    if max_memory is None:
        return "perhaps it takes more memory than there is"
    return f"perhaps it takes more memory than the {max_memory / 1e9:.1f} GB that it may (--max-memory)"
