"""Times the compiled model and full inference in interleaved rounds, so that drift of the machine's speed cancels out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.inference.full import FullInference
from kcompiler.runtime.inference.workers import Workers
from kcompiler.runtime.inputs.images import cover

FULL_BATCHES = {"cpu": (1, 2, 4, 8, 16), "cuda": (1, 8, 32, 64, 128, 256)}
"""Batch sizes of full inference to measure, by device."""
FILL = 0.5


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per position: statistics over the rounds."""

    median: float
    fastest: float
    slowest: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Timing:
        return cls(statistics.median(rounds), min(rounds), max(rounds))


@dataclass(frozen=True, slots=True)
class TimedFull:
    """Full inference at a batch size.

    Attributes:
        batch: images per batch.
        workers: ``workers.count`` batches run concurrently.
    """

    full: FullInference
    batch: int
    workers: Workers

    def seconds(self, image: FloatArray, fill: FloatArray, positions: IntArray, patch: tuple[int, int]) -> float:
        """Seconds per position, over at least 16; includes covering the images on CPUs. On other devices the images lie there."""
        count = -(-16 // (self.batch * self.workers.count)) * self.workers.count
        parts = [np.arange(first, first + self.batch) % len(positions) for first in range(0, count * self.batch, self.batch)]
        runs: list[Callable[[], object]]
        if self.full.device == "cpu":
            runs = [partial(self._covered, image, fill, positions[part], patch) for part in parts]
        else:
            runs = [self.full.ready(cover(image, fill, positions[part], patch)) for part in parts]
        start = time.perf_counter()
        for _ in self.workers.map(lambda run: run(), runs):
            pass
        return (time.perf_counter() - start) / (count * self.batch)

    def _covered(self, image: FloatArray, fill: FloatArray, positions: IntArray, patch: tuple[int, int]) -> FloatArray:
        return self.full.run(cover(image, fill, positions, patch))


def ways_of_full(explainer: Explainer) -> list[list[TimedFull]]:
    """Full inference at each batch size: with all threads on one batch; then with concurrent batches, if the engine has such."""
    full, workers = explainer.full_inference(), explainer.exact.workers
    sizes = [size for size in FULL_BATCHES[full.device] if size <= explainer.manifest.largest_batch]
    ways = [[TimedFull(full, size, Workers(1)) for size in sizes]]
    if workers.count > 1:
        share = explainer.full_inference(machine=explainer.machine.divided(workers.count)[1])
        ways.append([TimedFull(share, size, workers) for size in sizes])
    return ways


def time_compiled(explainer: Explainer, baseline: Baseline, chosen: Sequence[IntArray]) -> float:
    """Seconds per position of the compiled model, over ``chosen`` batches of positions, int64 [N, 2] each."""
    start = time.perf_counter()
    for _ in explainer.exact.evaluate_batches(baseline, chosen):
        pass
    return (time.perf_counter() - start) / sum(len(batch) for batch in chosen)


def in_turn(ways: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Calls ``ways`` in turn, ``rounds`` times after a round for warming up; returns the results of each."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for seconds, way in zip(times, ways, strict=True):
            seconds.append(way())
    return [seconds[1:] for seconds in times]


def between(ticks: Sequence[float]) -> list[float]:
    """Means of neighbouring ticks: the estimate for the time between them."""
    return [(before + after) / 2 for before, after in pairwise(ticks)]


def ratios(whole: Sequence[float], part: Sequence[float]) -> list[float]:
    return [numerator / denominator for numerator, denominator in zip(whole, part, strict=True)]
