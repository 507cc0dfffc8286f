"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is unfinished is removed, what can be gone on with is kept."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""The exit code of an interrupted command."""
REPEATED = 5.0
"""Seconds after a signal in which others are taken for the same: service managers send several at once, and terminals, too."""


class Ended(KeyboardInterrupt):
    """The process is told to end. ``number`` is that of the signal."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Ending:
    """What a signal does: it interrupts the main thread once. ``code`` is the exit code of an interrupted command."""

    def __init__(self) -> None:
        self.code = INTERRUPTED
        self._last = float("-inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._last > REPEATED:
            self._last, self.code = time.monotonic(), 128 + number
            raise Ended(number)


@contextmanager
def ended_by_signals() -> Iterator[Ending]:
    """Lets SIGTERM and SIGHUP interrupt, unless they are ignored (nohup)."""
    ending = Ending()
    names = () if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP)
    earlier = {name: signal.getsignal(name) for name in names}
    for name, handler in earlier.items():
        if handler == signal.SIG_DFL:
            signal.signal(name, ending)
    try:
        yield ending
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)
