"""A network: exactness, full inference at every batch size, the compiled map, and what the cost model predicts of both."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from bench.on_cuda.rates import RATES, seconds
from bench.on_cuda.scale import Scale
from bench.on_cuda.worker import OutOfTimeError, Run

import kcompiler
from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.manifest import FULL
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.cuda import CudaOptions
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inference.sessions import Machine, captured_as, onnxruntime, open_session
from kcompiler.runtime.inputs.images import cover, fill_image
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import check, random_image, sample_positions
from kcompiler.runtime.measuring.timing import FILL, in_turn

MEMORY = 32 << 30
"""Bytes for a batch of positions: batch sizes are not to be limited by the default."""
SEED = 2019
SHARE_OF_ROUNDS = 0.6
"""Share of the rest of a section's time that the interleaved rounds may take, if that holds more than one."""
OPTIONS = {
    "channels last": CudaOptions(channels_last=True),
    "exhaustive search": CudaOptions(search="EXHAUSTIVE"),
    "TF32": CudaOptions(tf32=True),
    "CUDA graph": CudaOptions(graphs=True),
}
"""Other ways to run full inference. All but TF32 keep float32."""
PREDICTED_BY = {"products": "gemm", "convolved": "conv of regions", "moved": "copy", "node": "launch"}
"""The rate that each kind of work of the cost model takes; convolutions of full inference take "conv"."""


@dataclass(slots=True)
class Phases:
    """Seconds of a map: the baseline pass, the uncovered image's outputs, all batches of positions."""

    baseline: float
    unoccluded: float
    batches: float

    @property
    def total(self) -> float:
        return self.baseline + self.unoccluded + self.batches


@dataclass(slots=True)
class Subject:
    """A compiled network, an image, and the grid of positions whose map is timed."""

    explainer: Explainer
    image: FloatArray
    fill: FloatArray
    positions: IntArray

    @classmethod
    def of(cls, run: Run, bundle: str, *, compiled_for: str = "cuda", cuda: CudaOptions | None = None) -> Subject:
        """The bundle of that file name."""
        explainer = kcompiler.load(
            run.folder / bundle, providers=[run.scale.provider], memory=MEMORY, cuda=cuda, compiled_for=compiled_for
        )
        manifest = explainer.manifest
        image = random_image(manifest.shape, SEED, element=manifest.image_element)
        fill = manifest.image_element.fitted(fill_image(FILL, manifest.shape))
        return cls(explainer, image, fill, make_grid(manifest.shape[1:], manifest.patch, run.scale.stride).positions)

    @property
    def engine(self) -> Engine:
        return self.explainer.exact

    def covered(self, count: int) -> FloatArray:
        """Covered images [count, C, H, W]."""
        positions = self.positions[np.arange(count) % len(self.positions)]
        return cover(self.image, self.fill, positions, self.explainer.manifest.patch)

    def map(self, end: float, engine: Engine | None = None) -> Phases:
        """Times a map, whose outputs come back to the host.

        Raises:
            OutOfTimeError: the time ``end`` (of ``time.perf_counter``) came first.
        """
        engine = engine or self.engine
        marks = [time.perf_counter()]
        baseline = engine.baseline(self.image, self.fill)
        marks.append(time.perf_counter())
        engine.unoccluded(baseline)
        marks.append(time.perf_counter())
        parts = [part for part, _ in engine.run(baseline, self.positions, deadline=end)]
        marks.append(time.perf_counter())
        if sum(map(len, parts)) < len(self.positions):
            done = sum(map(len, parts))
            raise OutOfTimeError(f"{done} of {len(self.positions)} positions of a map in {marks[-1] - marks[0]:.1f} s")
        return Phases(*np.diff(marks))


def speed(run: Run, network: str) -> None:
    """All of a network's figures, the most important first."""
    start = time.perf_counter()
    subject = run.kept[network] = Subject.of(run, f"{network}.kc")
    variant = subject.engine.variant
    took = time.perf_counter() - start
    run.tell(
        "opened", {"seconds": took, "batch": subject.engine.batch, "classes": len(variant.classes), "whole": variant.whole},
        f"{took:.2f} s; batch {subject.engine.batch}, {len(variant.classes)} classes{', runs whole' if variant.whole else ''}",
    )  # fmt: skip
    run.attempt("exactness", partial(_exactness, run, subject))
    full = _full(run, subject)
    maps = _maps(run, subject, full)
    _predicted(run, subject, network, full, maps)
    run.attempt("full inference against the CPU's", partial(_against_cpu, run, subject))
    best = _full_otherwise(run, subject, full)
    run.tell("speed-up over the best", full[best] / maps, f"{full[best] / maps:.2f}x, full inference by {best}")


def _exactness(run: Run, subject: Subject) -> None:
    manifest = subject.explainer.manifest
    positions = sample_positions(manifest.shape[1:], manifest.patch, run.scale.checked, SEED)
    found = check(subject.explainer, positions)
    record = {**asdict(replace(found, allowed=None)), "positions": len(positions), "share": found.share}
    text = f"{'agrees' if found.agrees else 'DISAGREES: ' + found.reason} at {len(positions)} positions"
    run.tell("exactness", record, f"{text}, relative error {found.relative_error:.1e}, {found.share:.0%} of what is allowed")


def _against_cpu(run: Run, subject: Subject) -> None:
    """Whether float32 is float32 there: products in TF32 would differ by 1e-4 and more."""
    images = subject.covered(2)
    here, cpu = subject.explainer.full_inference(), subject.explainer.full_inference(machine=Machine(("cpu",)))
    expected = cpu.run(images)
    error = float(np.abs(here.run(images) - expected).max() / np.abs(expected).max())
    run.tell("full inference against the CPU's", error, f"relative difference {error:.1e}")


def _full(run: Run, subject: Subject) -> dict[str, float]:
    """Seconds per position of full inference by batch size, under the names "batch N" and, of the fastest, "best"."""
    full, found = subject.explainer.full_inference(), {}
    largest = subject.explainer.manifest.largest_batch
    for size in sizes(run.scale, largest):
        run.check()
        found[f"batch {size}"] = seconds(full.ready(subject.covered(size)), run.scale.rounds) / size
    text = " / ".join(f"{size.split()[1]}: {1e3 * value:.4g}" for size, value in found.items())
    run.tell("full inference, ms a position by batch", found, text)
    return found


def _best(found: Mapping[str, float]) -> str:
    return min(found, key=lambda name: found[name])


def _maps(run: Run, subject: Subject, full: Mapping[str, float]) -> float:
    """Seconds per position of the compiled map, interleaved with full inference at its best batch size."""
    cold = subject.map(run.end)
    run.tell("first map", asdict(cold), _phases(cold))
    second = subject.map(run.end)
    run.tell("second map", asdict(second), _phases(second))
    size, count = int(_best(full).split()[1]), len(subject.positions)
    whole = partial(seconds, subject.explainer.full_inference().ready(subject.covered(size)), 1, warm=0)
    maps: list[Phases] = []

    def one_map() -> float:
        maps.append(subject.map(run.end))
        return maps[-1].total / count

    rounds = int(SHARE_OF_ROUNDS * (run.end - time.perf_counter()) / (whole() + second.total)) - 1
    of_full, of_map = in_turn([lambda: whole() / size, one_map], min(max(rounds, 1), run.scale.rounds))
    typical = Phases(
        *(statistics.median(getattr(one, name) for one in maps[1:]) for name in ("baseline", "unoccluded", "batches"))
    )
    run.tell("map", {**asdict(typical), "positions": count, "rounds": of_map}, f"{_phases(typical)}, {count} positions")
    each, ratios = statistics.median(of_map), [a / b for a, b in zip(of_full, of_map, strict=True)]
    run.tell(
        "speed-up", {"median": statistics.median(ratios), "rounds": ratios, "full": of_full, "batch": size},
        f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f}): {1e3 * statistics.median(of_full):.4g} ms a "
        f"position by full inference (batch {size}), {1e3 * each:.4g} compiled",
    )  # fmt: skip
    return each


def _phases(phases: Phases) -> str:
    return (
        f"{phases.total:.4f} s = baseline {phases.baseline:.4f} + unoccluded {phases.unoccluded:.4f} + "
        f"batches {phases.batches:.4f}"
    )


def _predicted(run: Run, subject: Subject, network: str, full: Mapping[str, float], compiled: float) -> None:
    """The cost model's work over the measured rates, beside what was measured."""
    rates = json.loads((run.folder / RATES).read_text()) if (run.folder / RATES).exists() else {}
    work = json.loads((run.folder / f"{network}.work.json").read_text())
    for name, measured, conv in (("full", full[_best(full)], "conv"), ("compiled", compiled, "conv of regions")):
        by = {**PREDICTED_BY, "convolved": conv}
        if missing := [rate for rate in by.values() if rate not in rates]:
            run.tell(f"{name}, predicted", {"failed": f"no rate of {', '.join(missing)}"}, f"no rate of {', '.join(missing)}")
            continue
        parts = {unit: _time(unit, amount, rates[by[unit]]) for unit, amount in work[name].items()}
        total = sum(parts.values())
        shares = ", ".join(f"{unit} {value / total:.0%}" for unit, value in parts.items())
        run.tell(
            f"{name}, predicted", {"predicted": total, "measured": measured, "parts": parts, "work": work[name]},
            f"{1e3 * total:.4g} ms a position ({shares}); measured {1e3 * measured:.4g}, {measured / total:.2f} of it",
        )  # fmt: skip


def _time(unit: str, amount: float, rate: float) -> float:
    """Seconds of work; the rate of operators is the time of one."""
    return amount * rate if unit == "node" else amount / rate


def _full_otherwise(run: Run, subject: Subject, full: dict[str, float]) -> str:
    """Measures full inference in other ways at its best batch size, into ``full``; returns the name of the best in float32."""
    size = int(_best(full).split()[1])
    images = subject.covered(size)

    def measure(name: str, options: CudaOptions) -> None:
        machine = Machine((run.scale.provider,), cuda=options)
        if options.graphs:
            runner = captured(subject.explainer, machine, images)
        else:
            runner = subject.explainer.full_inference(machine=machine).ready(images)
        full[name] = seconds(runner, run.scale.rounds, warm=3) / size
        run.tell(f"full inference, {name}", full[name], f"{1e3 * full[name]:.4g} ms a position (batch {size})")

    for name, options in OPTIONS.items():
        run.attempt(f"full inference, {name}", partial(measure, name, options))
    return _best({name: value for name, value in full.items() if name != "TF32"})


def captured(explainer: Explainer, machine: Machine, images: FloatArray) -> Callable[[], object]:
    """A function that runs full inference on images that lie on the device; from the second call on, a CUDA graph of it."""
    session = open_session(explainer.folder / FULL, machine, shared={})
    binding, ort, device = session.io_binding(), onnxruntime(), machine.device
    image, output = session.get_inputs()[0].name, explainer.manifest.output
    binding.bind_ortvalue_input(image, ort.OrtValue.ortvalue_from_numpy(images, device, 0))
    binding.bind_output(output, device)
    session.run_with_iobinding(binding, captured_as(-1))
    result = binding.get_outputs()[0]
    binding.bind_ortvalue_output(output, result)

    def replay() -> Any:
        session.run_with_iobinding(binding, captured_as(1))
        return result.numpy()

    return replay


def batch_of(subject: Subject) -> IntArray:
    """The positions of the largest batch of the map."""
    return subject.positions[max(subject.engine.batches(subject.positions), key=len)]


def sizes(scale: Scale, largest: int) -> Sequence[int]:
    """Batch sizes of full inference up to the largest that a model takes."""
    return [size for size in scale.full if size <= largest]
