"""Where the time of the incremental model goes: ONNX Runtime's own profile, summed by operator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.bundle.plans import EVERYTHING
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.engine import Baseline


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """All nodes of one operator in a batch.

    Attributes:
        operator: as ONNX Runtime runs it (fused operators have names of their own).
        count: nodes.
        seconds: a position, of a batch that runs alone on the threads that it has among others.
        share: of the time of all operators.
    """

    operator: str
    count: int
    seconds: float
    share: float


def profile(explainer: Explainer, baseline: Baseline, batches: Sequence[IntArray]) -> list[OperatorTime]:
    """The operators of the incremental model over ``batches`` (positions, int64 [N, 2] each), slowest first."""
    with tempfile.TemporaryDirectory(prefix="kcompiler-profile-") as folder:
        session = explainer.engines[EVERYTHING.variant].sessions.open_incremental(Path(folder, "run"))
        binding = session.io_binding()
        for name, value in baseline.feeds.items():
            binding.bind_ortvalue_input(name, value)
        for part in (*batches, *batches):  # the first time is for warming up
            binding.bind_cpu_input("positions", np.ascontiguousarray(part))
            binding.bind_output(explainer.manifest.output, "cpu")
            session.run_with_iobinding(binding)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    nodes = nodes[len(nodes) // 2 :]
    times: dict[str, list[float]] = {}
    for event in nodes:
        times.setdefault(event["args"]["op_name"], []).append(event["dur"] * 1e-6)
    positions, total = sum(len(part) for part in batches), sum(sum(of) for of in times.values())
    found = [
        OperatorTime(operator, len(of) // len(batches), sum(of) / positions, sum(of) / total) for operator, of in times.items()
    ]
    return sorted(found, key=lambda one: -one.seconds)
