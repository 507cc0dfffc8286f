"""Progress of long computations, with a forecast of the remaining time."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from tqdm.auto import tqdm


@dataclass(frozen=True, slots=True)
class Progress:
    """A point in a long computation.

    Attributes:
        done, total: numbers of positions; or, where a computation has stages, parts of its work.
        seconds: elapsed seconds.
        remaining: forecast of the remaining seconds, at the mean rate so far.
        stage: what is being done, where a computation has stages.
    """

    done: int
    total: int
    seconds: float
    stage: str = ""

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


class Stages:
    """Reports progress through stages, each of which has a usual share of the work.

    The total is that of the stages expected: it grows with each that was not. What the callback raises ends the computation, and
    leaves the context as it is, whatever was made of it on the way.
    """

    def __init__(self, callback: ProgressCallback | bool | None, shares: Mapping[str, int]) -> None:
        """For stages of ``shares``, parts of the work by name. True shows a bar, from the first second on, until the end."""
        form = "{desc}{percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
        bar = {"bar_format": form, "smoothing": 0, "miniters": 0, "delay": 1, "leave": False}
        self._bar = tqdm(total=0, **bar) if callback is True else None
        self._callback = callback if callable(callback) else None
        self._shares, self._start = shares, time.perf_counter()
        self._total = self._before = 0
        self._expected = Counter[str]()
        self._stage, self._share = "", 0
        self._raised: BaseException | None = None

    def expect(self, *stages: str) -> None:
        """Adds stages to the work."""
        self._expected.update(stages)
        self._total += sum(self._shares[stage] for stage in stages)

    def enter(self, stage: str, of: str = "") -> None:
        """Begins a stage, ``of`` something, where there are several: all before is done."""
        if not self._expected[stage]:
            self.expect(stage)
        self._expected[stage] -= 1
        self._before, self._share = self._before + self._share, self._shares[stage]
        self._stage = f"{stage} {of}".rstrip()
        self.within(0, 1)

    def within(self, done: int, total: int) -> None:
        """The stage at hand is done to this part."""
        if self._bar is None and self._callback is None:
            return
        parts = self._before + round(self._share * done / total)
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.set_description_str(f"{self._stage}: ", refresh=False)
            self._bar.update(parts - self._bar.n)
        if self._callback is not None:
            try:
                self._callback(Progress(parts, self._total, time.perf_counter() - self._start, self._stage))
            except BaseException as raised:
                self._raised = raised
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        if failure is None and self._callback is not None:
            self._callback(Progress(self._total, self._total, time.perf_counter() - self._start))
        if self._bar is not None:
            self._bar.close()
        if self._raised is not None:
            raise self._raised from None


class Steps:
    """Counts the steps of a stage."""

    def __init__(self, tell: Callable[[int, int], None], total: int) -> None:
        """Tells (done, total)."""
        self._tell, self._total, self._done = tell, total, 0

    def advance(self, count: int) -> None:
        self._done += count
        self._tell(min(self._done, self._total), self._total)


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
