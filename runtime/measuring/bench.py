"""Benchmark: the compiled model against full inference at its best batch size, in interleaved rounds of the same run."""

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
from kcompiler.runtime.inference.spread import spread
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
    time_compiled,
    ways_of_full,
)

DRILL_DOWN = 16
"""Positions in a small evaluation, as when a map is refined."""
SIZING = 3
"""Rounds of full inference at each batch size, to choose the best."""
PROBED = 24
"""Approximate number of positions that are compared with full inference."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The measurements of a model.

    Attributes:
        positions: positions in the grid; ``sampled`` of them run on the compiled model in each round.
        full: seconds per position by batch size, all threads on one batch after the other; ``best_batch`` had the smallest
            median before the rounds, and is measured again between them.
        full_side_by_side: as ``full``, with concurrent batches, as the compiled model runs them; empty if it runs none.
        compiled: seconds per position, with the baseline pass divided over the grid.
        drill_down: full (best batch) over compiled for DRILL_DOWN positions alone, with the baseline pass.
        speedup: median over rounds of full (best batch, mean of just before and just after) over compiled;
            ``slowest_speedup`` and ``fastest_speedup`` are the extremes.
        undisturbed_speedup: the fastest full (best batch) over the fastest compiled. Where other processes take some of the
            cores' time, full inference waits for its slowest thread, and loses more than concurrent batches do.
        speedup_side_by_side: over full inference with concurrent batches at their best size; None if not measured.
        flops: FLOPs of a full inference.
        redundancy: full over recomputed FLOPs, which bounds the speed-up of an engine of direct convolutions.
        largest_error: against full inference; ``agrees`` tells whether it is within tolerance.
        memory_full, memory_compiled: each of a separate process; None where not measurable.
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
    """The positions of a grid on an image, and the ``chosen`` batches of them that the compiled model is timed on."""

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
        return cls(explainer, image, fill, positions, spread(explainer.exact, positions, sample))

    def compared(self) -> Comparison:
        """Compares a sample of the positions with full inference."""
        together = np.concatenate(self.chosen)
        probe = together[:: max(1, len(together) // PROBED)]
        return Reference(self.explainer, probe, image=self.image, fill=self.fill).compared(self.explainer)

    def full(self, way: TimedFull) -> float:
        """Seconds per position of full inference."""
        return way.seconds(self.image, self.fill, self.positions, self.explainer.manifest.patch)

    def compiled(self) -> float:
        """Seconds per position, with the baseline pass divided over the grid."""
        start = time.perf_counter()
        baseline = self.explainer.exact.baseline(self.image, self.fill)
        self.explainer.exact.unoccluded(baseline)
        once = time.perf_counter() - start
        return time_compiled(self.explainer, baseline, self.chosen) + once / len(self.positions)

    def drill_down(self) -> float:
        """Seconds per position of DRILL_DOWN positions alone, with the baseline pass."""
        few = self.positions[np.linspace(0, len(self.positions) - 1, min(DRILL_DOWN, len(self.positions))).round().astype(int)]
        start = time.perf_counter()
        self.explainer.exact.evaluate_all(self.explainer.exact.baseline(self.image, self.fill, len(few)), few)
        return (time.perf_counter() - start) / len(few)


@dataclass(frozen=True, slots=True, eq=False)
class _Full:
    """Timings of full inference with all threads on one batch, or with concurrent batches.

    Attributes:
        by_size: seconds per position in the sizing rounds, by batch size.
        best: full inference at the best batch size.
        ticks: seconds per position of ``best``, before the first round and after each.
    """

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
        """Speed-ups over ``seconds``, each of which was measured between two of ``ticks``."""
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
        stride: stride of the grid, in pixels.
        sample: approximate number of positions per round: whole batches of the driver, evenly chosen by predicted work.
        rounds: each runs the compiled model between two runs of full inference at its best batch size.
        memory: whether to measure peak memory too.
        tell: called with a line of text before each step.
    """
    manifest, trial = explainer.manifest, _Trial.of(explainer, stride, sample)
    tell("warm-up and comparison")
    compared = trial.compared()
    tell("full inference by batch size")
    timings = [_Full.of(ways, trial) for ways in ways_of_full(explainer)]
    compiled, drill_down = [], []
    in_turn([trial.compiled, trial.drill_down], 0)
    for number in range(rounds + 1):
        for timing in timings:
            timing.ticks.append(trial.full(timing.best))
        if number < rounds:
            tell(f"round {number + 1} of {rounds}")
            compiled.append(trial.compiled())
            drill_down.append(trial.drill_down())
    sequential, *concurrent = timings
    speedups = sequential.speedups(compiled)
    peaks: tuple[Memory | None, Memory | None] = (None, None)
    if memory:
        tell("peak memory")
        peaks = peak_memory(explainer, "full", sequential.best.batch), peak_memory(explainer, "compiled", explainer.batch)
    return Benchmark(
        model=manifest.model, shape=manifest.shape, patch=manifest.patch, stride=stride, positions=len(trial.positions),
        sampled=sum(map(len, trial.chosen)), batch=explainer.batch, rounds=rounds, full=sequential.measured(),
        full_side_by_side=concurrent[0].measured() if concurrent else {}, best_batch=sequential.best.batch,
        compiled=Timing.of(compiled), drill_down=statistics.median(sequential.speedups(drill_down)),
        speedup=statistics.median(speedups), slowest_speedup=min(speedups), fastest_speedup=max(speedups),
        undisturbed_speedup=min(sequential.ticks) / min(compiled),
        speedup_side_by_side=statistics.median(concurrent[0].speedups(compiled)) if concurrent else None,
        flops=manifest.report.flops, redundancy=manifest.report.redundancy_tight, largest_error=compared.largest_error,
        agrees=compared.agrees, memory_full=peaks[0], memory_compiled=peaks[1],
    )  # fmt: skip
