"""Profiles the incremental model: ONNX Runtime's own profile, summed by operator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.bundle.plans import EVERYTHING
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.scratch import scratch_folder


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """Time of all nodes of an operator.

    Attributes:
        operator: operator type as ONNX Runtime runs it (fused operators have their own types).
        count: number of nodes.
        seconds: seconds per position, of batches that run one after the other with the threads of a concurrent batch.
        share: share of the time of all operators.
    """

    operator: str
    count: int
    seconds: float
    share: float


def profile(explainer: Explainer, baseline: Baseline, batches: Sequence[IntArray]) -> list[OperatorTime]:
    """The operators of the incremental model over ``batches`` (positions, int64 [N, 2] each), slowest first."""
    with scratch_folder("profile") as folder:
        engine = explainer.engines[EVERYTHING.variant]
        session = engine.sessions.open_incremental(folder / "run")
        for batch in (*batches, *batches):  # the first pass is for warming up
            binding = session.io_binding()
            for name, value in engine.feeds(baseline, batch).items():
                binding.bind_ortvalue_input(name, value)
            binding.bind_output(explainer.manifest.output, "cpu")
            session.run_with_iobinding(binding)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    nodes = nodes[len(nodes) // 2 :]
    times: dict[str, list[float]] = {}
    for event in nodes:
        times.setdefault(event["args"]["op_name"], []).append(event["dur"] * 1e-6)
    positions, total = sum(len(batch) for batch in batches), sum(sum(seconds) for seconds in times.values())
    operators = [
        OperatorTime(operator, len(seconds) // len(batches), sum(seconds) / positions, sum(seconds) / total)
        for operator, seconds in times.items()
    ]
    return sorted(operators, key=lambda operator: -operator.seconds)
