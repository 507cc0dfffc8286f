"""Progress of long computations, with a forecast of the remaining time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

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


class Overall:
    """One bar, with one forecast, over the explanations of many pictures."""

    def __init__(self, pictures: int) -> None:
        form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}]"
        self._bar = tqdm(total=pictures, desc="pictures", bar_format=form)
        self._finished = 0

    def within(self, progress: Progress) -> None:
        """Takes the progress of the picture at hand."""
        self._advance_to(self._finished + (progress.done / progress.total if progress.total else 0.0))

    def next(self) -> None:
        """The picture at hand is done with."""
        self._finished += 1
        self._advance_to(float(self._finished))

    def _advance_to(self, pictures: float) -> None:
        self._bar.update(pictures - self._bar.n)

    def write(self, text: str, *, error: bool = False) -> None:
        """Prints a line above the bar."""
        self._bar.write(text, file=sys.stderr if error else sys.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
