"""The progress of ``kcompiler tune``: bars on a terminal, dated lines where standard error is none, and in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kcompiler.runtime.bundle.files import naming
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.tuning.trials import Tell

Say = Callable[[str], None]


class Bars:
    """Shows each step on its own line, with a forecast."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lines = progress, dict[str, TaskID]()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._lines:
            self._lines[what] = self._progress.add_task(what)
        for line in self._lines.values():
            if line != self._lines[what]:  # only starts are reported, so a new step means that the others are done
                self._progress.update(line, completed=self._progress.tasks[line].total)
        if done == 0:
            self._progress.reset(self._lines[what])
        self._progress.update(self._lines[what], completed=done, total=total)

    def close(self) -> None:
        """Marks all steps as done."""
        for line in self._lines.values():
            self._progress.update(line, completed=self._progress.tasks[line].total)


@contextmanager
def progress(log: Path | None) -> Iterator[tuple[Tell, Say]]:
    """A callback for steps, and one that adds a line to the log, if there is one.

    Raises:
        UsageError: the log cannot be written.
    """
    console = Console(stderr=True)
    with ExitStack() as stack:
        files = [] if log is None else [stack.enter_context(_opened(log))]
        if console.is_terminal:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
            shown = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
            bars = Bars(stack.enter_context(shown))
            stack.callback(bars.close)
            tells: list[Tell] = [bars]
        else:
            tells = [lambda what, done, total: _write(sys.stderr, _step(what, done, total))]

        def tell(what: str, done: int, total: int) -> None:
            for one in tells:
                one(what, done, total)
            say(_step(what, done, total))

        def say(text: str) -> None:
            for file in files:
                with naming(Path(file.name)):
                    _write(file, text)

        yield tell, say


def _opened(log: Path) -> TextIO:
    try:
        return log.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--log {log}: cannot be written ({error.strerror}); name a file in a folder that exists") from error


def _step(what: str, done: int, total: int) -> str:
    return f"{what}: {done + 1} of {total}"


def _write(file: TextIO, text: str) -> None:
    print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {text}", file=file, flush=True)
