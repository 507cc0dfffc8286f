"""Measuring: the compiled path against full inference at its best batch size, in turn, in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kcompiler.runtime.check import random_image
from kcompiler.runtime.compare import compare
from kcompiler.runtime.engine import Baseline
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.full import FullInference
from kcompiler.runtime.images import FloatArray, cover, fill_image
from kcompiler.runtime.positions import IntArray, make_grid
from kcompiler.runtime.workers import Workers

FULL_BATCHES = (1, 8, 16)
FILL = 0.5
DRILL_DOWN = 16
"""Positions of a step that refines a map."""
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds a position over the rounds."""

    median: float
    fastest: float
    slowest: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Measured:
        return cls(statistics.median(rounds), min(rounds), max(rounds))


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process that does nothing but load and run one of the two paths, in bytes.

    Attributes:
        peak: resident at the peak.
        private: of its own at the end. The rest is mapped from files: weights that the system can drop and read again.
    """

    peak: int
    private: int


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One model's figures.

    Attributes:
        positions: of the whole grid; ``sampled`` of them were run on the compiled path in each round.
        full: seconds a position by batch size, all threads on one batch after the other; ``best_batch`` has the smallest median.
        full_side_by_side: the same with several batches at once, as the compiled path has them; empty if it has not.
        compiled: seconds a position, the baseline pass shared out over the grid.
        drill_down: full (best batch) over compiled for DRILL_DOWN positions alone, the baseline pass included.
        speedup: median over rounds of full (best batch) over compiled; ``slowest_speedup`` and ``fastest_speedup`` the extremes.
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
    full: dict[int, Measured]
    full_side_by_side: dict[int, Measured]
    best_batch: int
    compiled: Measured
    drill_down: float
    speedup: float
    slowest_speedup: float
    fastest_speedup: float
    speedup_side_by_side: float | None
    flops: int
    redundancy: float
    largest_error: float
    agrees: bool
    memory_full: Memory | None
    memory_compiled: Memory | None

    def as_record(self) -> dict[str, object]:
        return asdict(self)


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
        rounds: each runs full inference at every batch size, then the compiled path.
        memory: measure peak memory too.
        tell: called with a line before each step.
    """
    manifest = explainer.manifest
    image, fill = random_image(manifest.shape, 0), fill_image(FILL, manifest.shape)
    positions = make_grid(manifest.shape[1:], manifest.patch, stride).positions
    chosen = spread(explainer, positions, sample)
    count = sum(len(part) for part in chosen)
    full = explainer.full_inference()
    tell("warm-up and comparison")
    baseline = explainer.baseline(image, FILL)
    probe = np.concatenate(chosen)[:: max(1, count // 24)]
    reference = full.outputs(image, fill, probe, manifest.patch)
    compared = compare(
        explainer.evaluate_all(baseline, probe), reference,
        lambda: explainer.full_inference(optimise=False).outputs(image, fill, probe, manifest.patch),
    )  # fmt: skip
    ways = [TimedFull(full, size, Workers(1)) for size in FULL_BATCHES if size <= manifest.largest_batch]
    workers = explainer.exact.workers
    if workers.count > 1:
        share = explainer.full_inference(machine=explainer.machine.divided(workers.count)[1])
        ways += [TimedFull(share, way.batch, workers) for way in ways]
    full_rounds: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way.seconds(image, fill, positions, manifest.patch)
    compiled_rounds: list[float] = []
    few = positions[np.linspace(0, len(positions) - 1, min(DRILL_DOWN, len(positions))).round().astype(int)]
    drill_rounds: list[float] = []
    explainer.evaluate_all(baseline, few)
    time_compiled(explainer, baseline, chosen)
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for way, seconds in zip(ways, full_rounds, strict=True):
            seconds.append(way.seconds(image, fill, positions, manifest.patch))
        start = time.perf_counter()
        explainer.unoccluded(explainer.baseline(image, FILL))
        once = time.perf_counter() - start
        compiled_rounds.append(time_compiled(explainer, baseline, chosen) + once / len(positions))
        start = time.perf_counter()
        explainer.outputs(image, few, FILL)
        drill_rounds.append((time.perf_counter() - start) / len(few))
    timed = list(zip(ways, full_rounds, strict=True))
    in_turn = {way.batch: seconds for way, seconds in timed if way.workers.count == 1}
    at_once = {way.batch: seconds for way, seconds in timed if way.workers.count > 1}
    best = _best(in_turn)
    ratios = _ratios(in_turn[best], compiled_rounds)
    peaks: tuple[Memory | None, Memory | None] = (None, None)
    if memory:
        tell("peak memory")
        peaks = peak_memory(explainer, "full", best), peak_memory(explainer, "compiled", explainer.batch)
    return Benchmark(
        model=manifest.model, shape=manifest.shape, patch=manifest.patch, stride=stride, positions=len(positions), sampled=count,
        batch=explainer.batch, rounds=rounds, full={size: Measured.of(seconds) for size, seconds in in_turn.items()},
        full_side_by_side={size: Measured.of(seconds) for size, seconds in at_once.items()},
        best_batch=best, compiled=Measured.of(compiled_rounds),
        drill_down=statistics.median(_ratios(in_turn[best], drill_rounds)),
        speedup_side_by_side=statistics.median(_ratios(at_once[_best(at_once)], compiled_rounds)) if at_once else None,
        flops=manifest.report.flops, speedup=statistics.median(ratios), slowest_speedup=min(ratios),
        fastest_speedup=max(ratios), redundancy=manifest.report.redundancy_tight, largest_error=compared.largest_error,
        agrees=compared.agrees, memory_full=peaks[0], memory_compiled=peaks[1],
    )  # fmt: skip


def spread(explainer: Explainer, positions: IntArray, sample: int) -> list[IntArray]:
    """Whole batches of the driver of about ``sample`` positions together, evenly spread over those of the whole grid.

    They are as many for each worker.
    """
    parts = explainer.batches(positions)
    workers = explainer.exact.workers.count
    rounds = -(-sample * len(parts) // (len(positions) * workers))
    wanted = min(len(parts), max(1, rounds) * workers)
    numbers = np.unique(np.linspace(0, len(parts) - 1, wanted).round().astype(int))
    return [positions[parts[number]] for number in numbers]


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


def _best(rounds: Mapping[int, Sequence[float]]) -> int:
    return min(rounds, key=lambda size: statistics.median(rounds[size]))


def _ratios(whole: Sequence[float], part: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(whole, part, strict=True)]


def time_compiled(explainer: Explainer, baseline: Baseline, chosen: Sequence[IntArray]) -> float:
    """Seconds a position, over ``chosen`` batches."""
    start = time.perf_counter()
    for _ in explainer.evaluate_batches(baseline, chosen):
        pass
    return (time.perf_counter() - start) / sum(len(part) for part in chosen)


def peak_memory(explainer: Explainer, path: str, batch: int) -> Memory | None:
    """Memory of the host that a process takes which does nothing but load and run "full" or "compiled".

    None where the system does not tell (it is read from /proc, since getrusage reports the parent's peak if that is higher).
    """
    if not STATUS.is_file():
        return None
    code = "import sys; from kcompiler.runtime.bench import print_peak; print_peak(*sys.argv[1:])"
    machine = explainer.machine
    providers = ",".join(machine.providers or ())
    arguments = [sys.executable, "-P", "-c", code, str(explainer.folder), path, str(batch), str(machine.threads or 0), providers]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    peak, private = map(int, done.stdout.split())
    return Memory(peak, private)


def print_peak(folder: str, path: str, batch: str, threads: str, providers: str) -> None:
    """What :func:`peak_memory` runs: some batches, then this process's :class:`Memory` on stdout."""
    size = int(batch)
    explainer = Explainer(Path(folder), threads=int(threads) or None, providers=providers.split(",") if providers else None)
    manifest = explainer.manifest
    image, fill = random_image(manifest.shape, 0), fill_image(FILL, manifest.shape)
    positions = make_grid(manifest.shape[1:], manifest.patch, 4).positions
    full = explainer.full_inference() if path == "full" else None  # kept until the end, as a session is
    if full is not None:
        full.outputs(image, fill, positions[: 3 * size], manifest.patch, batch=size)
    else:
        baseline = explainer.baseline(image, FILL)
        for _ in explainer.evaluate_batches(baseline, spread(explainer, positions, 5 * size)):
            pass
    status = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    print(*(int(status[key].split()[0]) * 1024 for key in ("VmHWM", "RssAnon")))
