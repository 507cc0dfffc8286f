"""Measuring: the compiled path against full inference at its best batch size, in turn, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.exactness.compare import Comparison
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.images import fill_image
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import Reference, random_image
from kcompiler.runtime.measuring.memory import Memory, peak_memory
from kcompiler.runtime.measuring.timing import (
    FILL,
    TimedFull,
    Timing,
    between,
    in_turn,
    ratios,
    spread,
    time_compiled,
    ways_of_full,
)

DRILL_DOWN = 16
"""Positions of a step that refines a map."""
SIZING = 3
"""Rounds of full inference at every batch size that decide which is best."""
PROBED = 24
"""About how many positions are compared."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One model's figures.

    Attributes:
        positions: of the whole grid; ``sampled`` of them were run on the compiled path in each round.
        full: seconds a position by batch size, all threads on one batch after the other; ``best_batch`` had the smallest median
            before the rounds, and is measured between them.
        full_side_by_side: the same with several batches at once, as the compiled path has them; empty if it has not.
        compiled: seconds a position, the baseline pass shared out over the grid.
        drill_down: full (best batch) over compiled for DRILL_DOWN positions alone, the baseline pass included.
        speedup: median over rounds of full (best batch, the mean of just before and just after) over compiled;
            ``slowest_speedup`` and ``fastest_speedup`` the extremes.
        undisturbed_speedup: the fastest full (best batch) over the fastest compiled. Where other processes take some of the
            cores' time, full inference waits for the slowest of its threads, and loses more than batches side by side do.
        speedup_side_by_side: over full inference side by side at its best batch size; None if that was not measured.
        flops: of one full inference.
        redundancy: full over recomputed FLOPs, the bound of an engine of direct convolutions.
        largest_error: against full inference; ``agrees`` whether within tolerance.
        memory_full, memory_compiled: each in a process of its own; None where not measurable.
    """

    model: str
    shape: tuple[int, int, int]
    patch: tuple[int, int]
    stride: int
    positions: int
    sampled: int
    batch: int
    rounds: int
    full: dict[int, Timing]
    full_side_by_side: dict[int, Timing]
    best_batch: int
    compiled: Timing
    drill_down: float
    speedup: float
    slowest_speedup: float
    fastest_speedup: float
    undisturbed_speedup: float
    speedup_side_by_side: float | None
    flops: int
    redundancy: float
    largest_error: float
    agrees: bool
    memory_full: Memory | None
    memory_compiled: Memory | None

    def as_record(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """What is timed: positions of a grid on one image; ``chosen`` batches of them on the compiled path."""

    explainer: Explainer
    image: FloatArray
    fill: FloatArray
    positions: IntArray
    chosen: list[IntArray]

    @classmethod
    def of(cls, explainer: Explainer, stride: int, sample: int) -> _Trial:
        manifest = explainer.manifest
        positions = make_grid(manifest.shape[1:], manifest.patch, stride).positions
        fill = manifest.image_element.fitted(fill_image(FILL, manifest.shape))
        image = random_image(manifest.shape, 0, element=manifest.image_element)
        return cls(explainer, image, fill, positions, spread(explainer, positions, sample))

    def compared(self) -> Comparison:
        """Some of the positions, with full inference."""
        together = np.concatenate(self.chosen)
        probe = together[:: max(1, len(together) // PROBED)]
        return Reference(self.explainer, probe, image=self.image, fill=self.fill).compared(self.explainer)

    def full(self, way: TimedFull) -> float:
        """Seconds a position of full inference."""
        return way.seconds(self.image, self.fill, self.positions, self.explainer.manifest.patch)

    def compiled(self) -> float:
        """Seconds a position, the baseline pass shared out over the grid."""
        start = time.perf_counter()
        baseline = self.explainer.exact.baseline(self.image, self.fill)
        self.explainer.exact.unoccluded(baseline)
        once = time.perf_counter() - start
        return time_compiled(self.explainer, baseline, self.chosen) + once / len(self.positions)

    def drill_down(self) -> float:
        """Seconds a position of DRILL_DOWN alone."""
        few = self.positions[np.linspace(0, len(self.positions) - 1, min(DRILL_DOWN, len(self.positions))).round().astype(int)]
        start = time.perf_counter()
        self.explainer.exact.evaluate_all(self.explainer.exact.baseline(self.image, self.fill, len(few)), few)
        return (time.perf_counter() - start) / len(few)


@dataclass(frozen=True, slots=True, eq=False)
class _Full:
    """Full inference in one manner: seconds a position by batch size, and, at the best one, before and after each round."""

    by_size: dict[int, list[float]]
    best: TimedFull
    ticks: list[float]

    @classmethod
    def of(cls, ways: Sequence[TimedFull], trial: _Trial) -> _Full:
        seconds = in_turn([partial(trial.full, way) for way in ways], SIZING)
        best = min(range(len(ways)), key=lambda number: statistics.median(seconds[number]))
        return cls({way.batch: times for way, times in zip(ways, seconds, strict=True)}, ways[best], [])

    def measured(self) -> dict[int, Timing]:
        return {size: Timing.of(self.ticks if size == self.best.batch else times) for size, times in self.by_size.items()}

    def speedups(self, seconds: Sequence[float]) -> list[float]:
        """Over each two of ``seconds``, taken between them."""
        return ratios(between(self.ticks), seconds)


def benchmark(
    explainer: Explainer,
    *,
    stride: int,
    sample: int,
    rounds: int,
    memory: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Benchmark:
    """Measures ``explainer`` against full inference.

    Args:
        stride: of the grid the figures are for.
        sample: about how many positions to run a round: whole batches of the driver, evenly spread over the grid.
        rounds: each runs the compiled path between two runs of full inference at its best batch size.
        memory: measure peak memory too.
        tell: called with a line before each step.
    """
    manifest, trial = explainer.manifest, _Trial.of(explainer, stride, sample)
    tell("warm-up and comparison")
    compared = trial.compared()
    tell("full inference by batch size")
    manners = [_Full.of(ways, trial) for ways in ways_of_full(explainer)]
    compiled, drill_down = [], []
    in_turn([trial.compiled, trial.drill_down], 0)
    for number in range(rounds + 1):
        for manner in manners:
            manner.ticks.append(trial.full(manner.best))
        if number < rounds:
            tell(f"round {number + 1} of {rounds}")
            compiled.append(trial.compiled())
            drill_down.append(trial.drill_down())
    alone, *at_once = manners
    speedups = alone.speedups(compiled)
    peaks: tuple[Memory | None, Memory | None] = (None, None)
    if memory:
        tell("peak memory")
        peaks = peak_memory(explainer, "full", alone.best.batch), peak_memory(explainer, "compiled", explainer.batch)
    return Benchmark(
        model=manifest.model, shape=manifest.shape, patch=manifest.patch, stride=stride, positions=len(trial.positions),
        sampled=sum(map(len, trial.chosen)), batch=explainer.batch, rounds=rounds, full=alone.measured(),
        full_side_by_side=at_once[0].measured() if at_once else {}, best_batch=alone.best.batch, compiled=Timing.of(compiled),
        drill_down=statistics.median(alone.speedups(drill_down)), speedup=statistics.median(speedups),
        slowest_speedup=min(speedups), fastest_speedup=max(speedups), undisturbed_speedup=min(alone.ticks) / min(compiled),
        speedup_side_by_side=statistics.median(at_once[0].speedups(compiled)) if at_once else None,
        flops=manifest.report.flops, redundancy=manifest.report.redundancy_tight, largest_error=compared.largest_error,
        agrees=compared.agrees, memory_full=peaks[0], memory_compiled=peaks[1],
    )  # fmt: skip
