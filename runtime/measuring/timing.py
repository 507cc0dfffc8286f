"""Timing the compiled path against full inference in turn, so that a machine that drifts does not decide between them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.engine import Baseline
from kcompiler.runtime.inference.full import FullInference
from kcompiler.runtime.inference.workers import Workers
from kcompiler.runtime.inputs.images import cover

FULL_BATCHES = (1, 2, 4, 8, 16)
FILL = 0.5


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a position over the rounds."""

    median: float
    fastest: float
    slowest: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Timing:
        return cls(statistics.median(rounds), min(rounds), max(rounds))


@dataclass(frozen=True, slots=True)
class TimedFull:
    """A way to run full inference.

    Attributes:
        batch: images in each batch.
        workers: run so many batches at once.
    """

    full: FullInference
    batch: int
    workers: Workers

    def seconds(self, image: FloatArray, fill: FloatArray, positions: IntArray, patch: tuple[int, int]) -> float:
        """A position, over at least 16 images: covering them is part of the work."""
        runs = -(-16 // (self.batch * self.workers.count)) * self.workers.count
        numbers = [np.arange(first, first + self.batch) % len(positions) for first in range(0, runs * self.batch, self.batch)]
        start = time.perf_counter()
        for _ in self.workers.map(lambda part: self.full.run(cover(image, fill, positions[part], patch)), numbers):
            pass
        return (time.perf_counter() - start) / (runs * self.batch)


def ways_of_full(explainer: Explainer) -> list[list[TimedFull]]:
    """Full inference at each batch size: all threads on one batch; and several at once, if the compiled path has them so."""
    full, workers = explainer.full_inference(), explainer.exact.workers
    sizes = [size for size in FULL_BATCHES if size <= explainer.manifest.largest_batch]
    ways = [[TimedFull(full, size, Workers(1)) for size in sizes]]
    if workers.count > 1:
        share = explainer.full_inference(machine=explainer.machine.divided(workers.count)[1])
        ways.append([TimedFull(share, size, workers) for size in sizes])
    return ways


def time_compiled(explainer: Explainer, baseline: Baseline, chosen: Sequence[IntArray]) -> float:
    """Seconds a position, over ``chosen`` batches."""
    start = time.perf_counter()
    for _ in explainer.exact.evaluate_batches(baseline, chosen):
        pass
    return (time.perf_counter() - start) / sum(len(part) for part in chosen)


def spread(explainer: Explainer, positions: IntArray, sample: int) -> list[IntArray]:
    """Whole batches of the driver of about ``sample`` positions together, which stand for those of the whole grid.

    The grid's batches in the order of their predicted work are divided evenly, and the middle one of each part is taken. (Taken
    evenly in the order of the driver, 320 of 3,000 positions were up to 2% less work than all, 160 up to 5%.) They are as many
    for each worker.
    """
    engine = explainer.exact
    parts = sorted((positions[part] for part in explainer.exact.batches(positions)), key=engine.work)
    rounds = -(-sample * len(parts) // (len(positions) * engine.workers.count))
    wanted = min(len(parts), max(1, rounds) * engine.workers.count)
    return [parts[(2 * number + 1) * len(parts) // (2 * wanted)] for number in range(wanted)]


def in_turn(ways: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """What each of ``ways`` returns, round by round, after one that does not count."""
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for seconds, way in zip(found, ways, strict=True):
            seconds.append(way())
    return [seconds[1:] for seconds in found]


def between(ticks: Sequence[float]) -> list[float]:
    """Means of each two neighbours: how long something took at the time between them."""
    return [(before + after) / 2 for before, after in pairwise(ticks)]


def ratios(whole: Sequence[float], part: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(whole, part, strict=True)]
