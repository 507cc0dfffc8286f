"""Progress of long computations, with a forecast of the remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm.auto import tqdm


@dataclass(frozen=True, slots=True)
class Progress:
    """A point in a long computation.

    Attributes:
        done, total: numbers of positions.
        seconds: elapsed seconds.
        remaining: forecast of the remaining seconds, at the mean rate so far.
    """

    done: int
    total: int
    seconds: float

    @property
    def remaining(self) -> float:
        return self.seconds / self.done * (self.total - self.done) if self.done else float("inf")


ProgressCallback = Callable[[Progress], None]


class Reporter:
    """Reports progress to a callback; True shows a progress bar on stderr or in the notebook."""

    def __init__(self, callback: ProgressCallback | bool | None, total: int, label: str = "positions") -> None:
        self._bar = tqdm(total=total, unit=" positions", desc=label) if callback is True else None
        self._callback = callback if callable(callback) else None
        self._total, self._done, self._start = total, 0, time.perf_counter()

    def advance(self, count: int) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        if self._callback is not None:
            self._callback(Progress(self._done, self._total, self.seconds))

    def finish(self) -> None:
        """Reports the end: lowers the total where fewer positions were done than announced."""
        if self._done < self._total:
            self._total = self._done
            if self._bar is not None:
                self._bar.total = self._total
                self._bar.refresh()
            self.advance(0)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
