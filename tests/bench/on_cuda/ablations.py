"""What each setting of the compiled model gives: maps with it changed, interleaved with maps as they are by default."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

from bench.on_cuda.speed import Phases, Subject
from bench.on_cuda.worker import OutOfTimeError, Run

from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.inference.cuda import CudaOptions
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.measuring.check import Reference, sample_positions
from kcompiler.runtime.measuring.timing import in_turn

ROUNDS, WARM = 3, 2
PROBED = 12
"""Positions at which the variants that nothing verified are compared with full inference."""
PLANS = {
    "drill-down": SamplingPlan(method="drill-down", step=4, share=0.25),
    "kriging": SamplingPlan(step=4, share=0.25, expected_ssim=0.9),
}
Other = tuple[Subject, Engine]
"""What is timed: a subject, and the engine that makes its map."""


def ablations(run: Run, network: str, done: str = "0") -> None:
    """All ablations of a network but the first ``done``, the most telling first."""
    base = run.kept.get(network) or Subject.of(run, f"{network}.kc")
    base.map(run.end)
    whole = [(name, partial(_ablation, run, name, base, other)) for name, other in _all(run, network, base)]
    part = [(name, partial(_sampled, run, name, base, plan)) for name, plan in PLANS.items()]
    for name, measure in [*whole, *part][int(done) :]:
        run.attempt(name, measure)
        gc.collect()  # explainers hold memory of the device until then


def _all(run: Run, network: str, base: Subject) -> Iterator[tuple[str, Callable[[], Other]]]:
    """Names, and functions that open what is timed."""

    def loaded(**options: object) -> Other:
        subject = Subject.of(run, f"{network}.kc", **options)  # type: ignore[arg-type]
        return subject, subject.engine

    def variant(name: str) -> Other:
        subject = Subject.of(run, f"{network}.ablations.kc")
        if name not in subject.explainer.engines:
            raise LookupError("no such variant: its regions are the exact one's, or it is predicted to be slower")
        engine = subject.explainer.engines[name]
        engine.batch = base.engine.batch
        return subject, engine

    def batch(size: int) -> Other:
        subject, engine = loaded()
        engine.batch = size
        return subject, engine

    def one_session() -> Other:
        subject, engine = loaded()
        engine.sessions.of_class = lambda number: None  # type: ignore[method-assign]
        return subject, engine

    on_cuda = {
        "CUDA graphs": CudaOptions(graphs=True),
        "channels last": CudaOptions(channels_last=True),
        "search EXHAUSTIVE": CudaOptions(search="EXHAUSTIVE"),
        "search DEFAULT": CudaOptions(search="DEFAULT"),
    }
    counts = [count for count in run.scale.classes if (run.folder / f"{network}.ablations.kc").exists()]
    yield "CUDA graphs", partial(loaded, cuda=on_cuda["CUDA graphs"])
    yield "TF32", lambda: (base, base.explainer.engines["tf32"])
    for size in run.scale.batches:
        if size != base.engine.batch:
            yield f"batch {size}", partial(batch, size)
    for count in counts:
        yield f"{count} classes", partial(variant, f"classes{count}")
    for name, options in list(on_cuda.items())[1:]:
        yield name, partial(loaded, cuda=options)
    if counts:
        yield "transforms (Winograd)", partial(variant, "transforms")
    yield "one session for all classes", one_session
    yield "tight extents (the CPU's graph)", partial(loaded, compiled_for="cpu")
    if counts:
        yield "tau 0.5", partial(variant, "tau0.5")
        yield "tau 0.5 and TF32", partial(variant, "tau0.5.tf32")


def _ablation(run: Run, name: str, base: Subject, opened: Callable[[], Other]) -> None:
    """Times maps of ``opened`` and of ``base`` in turn."""
    end = min(run.end, time.perf_counter() + run.scale.longest)
    subject, engine = opened()
    maps: list[Phases] = []

    def one_map() -> float:
        maps.append(subject.map(end, engine))
        return maps[-1].total

    try:
        for _ in range(WARM):
            one_map()
        of_base, of_other = in_turn([lambda: base.map(end).total, one_map], ROUNDS)
    except OutOfTimeError as why:
        run.tell(
            name, {"failed": str(why), "maps": [asdict(one) for one in maps]}, f"did not fit {run.scale.longest:.0f} s: {why}"
        )
        return
    ratio = statistics.median(before / after for before, after in zip(of_base, of_other, strict=True))
    median = statistics.median(of_other)
    record = {
        "ratio": ratio,
        "seconds": median,
        "base": statistics.median(of_base),
        "first": asdict(maps[0]),
        "batch": engine.batch,
    }
    text = f"{median:.4f} s a map, {ratio:.2f}x as fast as by default; first map {maps[0].total:.2f} s, batch {engine.batch}"
    if engine.variant.name == "transforms":
        agrees = record["agrees"] = _agrees(subject, engine)
        text += f"; {'agrees' if agrees else 'DISAGREES'}"
    run.tell(name, record, text)


def _agrees(subject: Subject, engine: Engine) -> bool:
    manifest = subject.explainer.manifest
    reference = Reference(subject.explainer, sample_positions(manifest.shape[1:], manifest.patch, PROBED, 0))
    outputs = engine.evaluate_all(engine.baseline(reference.image, reference.fill), reference.positions, *manifest.outputs)
    return reference.judged(outputs).agrees


def _sampled(run: Run, name: str, base: Subject, plan: SamplingPlan) -> None:
    """Times a map from part of the positions, beside the whole map in the same way."""

    def explained(quality: object) -> float:
        run.check()
        start = time.perf_counter()
        heat_map = base.explainer.explain(base.image[0], stride=run.scale.stride, quality=quality)  # type: ignore[arg-type]
        shares.append(float(heat_map.sampled.mean()))
        return time.perf_counter() - start

    shares: list[float] = []
    whole, part = in_turn([partial(explained, "exact"), partial(explained, plan)], ROUNDS - 1)
    ratio = statistics.median(before / after for before, after in zip(whole, part, strict=True))
    text = (
        f"{statistics.median(part):.4f} s a map, {ratio:.2f}x as fast as all positions, {shares[-1]:.0%} of which are evaluated"
    )
    run.tell(name, {"ratio": ratio, "seconds": statistics.median(part), "evaluated": shares[-1]}, text)
