"""What a batch of the compiled model launches: nodes by execution provider, copies between host and device, time on the host."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
from bench.on_cuda.speed import Subject, batch_of
from bench.on_cuda.worker import Run

from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.inference.sessions import onnxruntime

ASYNCHRONOUS = "disable_synchronize_execution_providers"
"""Key of run options that let a run return once all its kernels are enqueued."""
SHOWN = 5
Event = Mapping[str, Any]


def kernels(run: Run, *networks: str) -> None:
    """For each network that has a subject; the others were not measured before, either."""
    for network in networks:
        if (run.folder / f"{network}.kc").exists():
            run.attempt(network, partial(_network, run, network))


def _network(run: Run, network: str) -> None:
    subject = run.kept.get(network) or Subject.of(run, f"{network}.kc")
    batch = batch_of(subject)
    record = nodes(profiled(subject, batch))
    providers = ", ".join(f"{count} nodes on {provider}" for provider, count in record["providers"].items())
    slowest = ", ".join(f"{name} {count}x" for name, count in record["operators"][:SHOWN])
    run.tell(network, record, f"{providers}; {record['copies']} copy nodes, {record['device kernels']} device kernels; {slowest}")
    if subject.engine.variant.index is not None and run.scale.provider == "cuda":
        on_host, whole = enqueued(subject, batch, run.scale.rounds)
        text = f"{1e3 * on_host:.3g} ms to enqueue a batch of {len(batch)}, {1e3 * whole:.3g} ms until it is done"
        run.tell(f"{network}, host", {"enqueued": on_host, "done": whole, "positions": len(batch)}, text)


def profiled(subject: Subject, batch: IntArray) -> list[Event]:
    """The events of ONNX Runtime's profiler in the second run of a batch."""
    engine, sessions = subject.engine, subject.engine.sessions
    baseline = engine.baseline(subject.image, subject.fill)
    with tempfile.TemporaryDirectory() as folder:
        session = sessions.open_incremental(Path(folder, "run"))
        sessions.of_class = lambda number: session  # type: ignore[method-assign]
        sessions.__dict__["alone"], before = session, sessions.__dict__.get("alone")
        try:
            engine.evaluate(baseline, batch)
            engine.evaluate(baseline, batch)
        finally:
            del sessions.of_class
            sessions.__dict__.pop("alone")
            sessions.__dict__.update({"alone": before} if before is not None else {})
        events: list[Event] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    starts = [event["ts"] for event in events if event["name"] == "model_run"]
    return [event for event in events if event["ts"] >= starts[-1]]


def nodes(events: Sequence[Event]) -> dict[str, Any]:
    """Nodes by provider and operator, copies, and kernels where the profiler saw the device."""
    run = [event["args"] for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    providers = Counter(args.get("provider", "unknown") for args in run)
    operators = Counter(args["op_name"] for args in run)
    return {
        "providers": dict(providers),
        "operators": operators.most_common(),
        "copies": sum(count for name, count in operators.items() if name.startswith("Memcpy")),
        "device kernels": sum(event.get("cat") == "Kernel" for event in events),
    }


def enqueued(subject: Subject, batch: IntArray, rounds: int) -> tuple[float, float]:
    """Median seconds until a batch is enqueued, and until it is computed."""
    engine = subject.engine
    baseline = engine.baseline(subject.image, subject.fill)
    binding = _bound(session := engine.sessions.incremental, engine.feeds(baseline, batch), engine.manifest.output)
    options = onnxruntime().RunOptions()
    options.add_run_config_entry(ASYNCHRONOUS, "1")
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        session.run_with_iobinding(binding, options)
        middle = time.perf_counter()
        binding.synchronize_outputs()
        times.append((middle - start, time.perf_counter() - start))
    on_host, whole = (statistics.median(column) for column in zip(*times[1:], strict=True))
    return on_host, whole


def _bound(session: ort.InferenceSession, feeds: Mapping[str, ort.OrtValue], output: str) -> ort.IOBinding:
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output(output, "cuda")
    return binding
