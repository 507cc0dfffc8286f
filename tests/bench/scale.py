"""Pictures a second by 1, 2 and 4 workers, processes and actors, beside one process with two threads; and their memory.

python tests/bench/scale.py BUNDLE [--pictures N] [--rounds N] [--stride S] [--count N...] [--json FILE]

Workers are open before the clock starts. "maps" are made and thrown away; "files" are what 'kcompiler explain' does: pictures are
read, maps, overlays and records written. Memory is each worker's resident set; in all, their own, and mapped weights once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import kcompiler
from kcompiler.commands import folder as folders
from kcompiler.commands.explaining import Call, explain_picture
from kcompiler.commands.many import Explaining
from kcompiler.commands.pictures import Job
from kcompiler.pool.crew import Opening, gathered
from kcompiler.pool.worker import Stopping
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.request import Request

COUNTS = (1, 2, 4)
KINDS = ("processes", "actors")
DRIVER = "one process, 2 threads"
Measured = dict[tuple[str, str, int], list[float]]
"""By what was made, by what kind of workers, and how many: a number a round."""


@dataclass(frozen=True, slots=True)
class Opens:
    """A worker that makes maps, or files, or tells its memory."""

    opening: Opening
    stride: int

    def __call__(self, stopping: Stopping) -> Callable[[tuple[str, Job], int], object]:
        call = call_of(self.opening.load(), self.stride)
        files = Explaining(call, stopping)
        ways = {
            "maps": lambda job: bool(call.explainer.explain(np.load(job.path), stride=self.stride).complete),
            "files": lambda job: files(job, 0).done,
            "memory": lambda job: (time.sleep(0.2), memory_of(os.getpid()))[1],
        }

        def work(task: tuple[str, Job], lost: int) -> object:
            start = time.process_time()
            done = ways[task[0]](task[1])
            return done if task[0] == "memory" else (done, time.process_time() - start)

        return work


def call_of(explainer: kcompiler.Explainer, stride: int) -> Call:
    return Call(explainer, Request(stride=stride), None, Style(), None, resume=False, force=True, progress=False)


def memory_of(pid: int) -> dict[str, float]:
    """Of a process, in MB: resident, its share of what others map too, its own; and what of the weights' files is mapped."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(re.findall(rf"^{key}: +(\d+) kB", rollup, re.MULTILINE)[0]) / 1000
             for name, key in (("rss", "Rss"), ("pss", "Pss"), ("anonymous", "Anonymous"))}  # fmt: skip
    mapped, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(".bin") and ".kc" in line
        elif inside and line.startswith("Rss:"):
            mapped += int(line.split()[1])
    return {"pid": pid, **found, "weights mapped": mapped / 1000}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # Ray's actors give way to other processes by default, which the one process does not.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        explainer = kcompiler.load(options.bundle, threads=2)
        jobs = _jobs(explainer, Path(scratch), options.pictures)
        with redirect_stdout(None), redirect_stderr(stack.enter_context(open(os.devnull, "w"))):
            stack.enter_context(_joined(max(options.count)))
        ways: dict[tuple[str, int], Any] = {}
        memory: dict[tuple[str, int], list[dict[str, float]]] = {}
        for kind in KINDS:
            for count in options.count:
                ways[kind, count] = stack.enter_context(_pool(kind, count, options))
                assert all(each.result for each in ways[kind, count].map(2 * count * [("maps", jobs[0])])), "warm"
        rates: Measured = {}
        seconds: Measured = {}
        for _ in range(options.rounds):
            for what in ("maps", "files"):
                start = time.process_time()
                rates.setdefault((what, DRIVER, 1), []).append(_driver(explainer, jobs, what, options.stride))
                seconds.setdefault((what, DRIVER, 1), []).append((time.process_time() - start) / len(jobs))
                for (kind, count), pool in ways.items():
                    start = time.perf_counter()
                    results = [each.result for each in pool.map([(what, job) for job in jobs])]
                    rates.setdefault((what, kind, count), []).append(len(jobs) / (time.perf_counter() - start))
                    assert all(done for done, _ in results)
                    seconds.setdefault((what, kind, count), []).append(statistics.fmean(cpu for _, cpu in results))
        for (kind, count), pool in ways.items():
            seen = {each.result["pid"]: each.result for each in pool.map(4 * count * [("memory", jobs[0])])}
            memory[kind, count] = list(seen.values())
    _print(rates, seconds, memory)
    if options.json is not None:
        rows = [{"what": what, "workers": kind, "count": count, "rates": all_} for (what, kind, count), all_ in rates.items()]
        options.json.write_text(json.dumps({"rates": rows, "memory": [[*key, each] for key, each in memory.items()]}, indent=1))
    return 0


def _jobs(explainer: kcompiler.Explainer, scratch: Path, count: int) -> list[Job]:
    """Preprocessed pictures of noise."""
    for number in range(count):
        noise = np.random.default_rng(number).standard_normal(explainer.manifest.shape, dtype=np.float32)
        np.save(scratch / f"{number}.npy", noise if explainer.manifest.layout == "NCHW" else noise.transpose(1, 2, 0))
    return [Job(scratch / f"{number}.npy", scratch / "maps", f"map{number}") for number in range(count)]


@contextmanager
def _joined(cpus: int) -> Iterator[None]:
    """A cluster that has CPUs for all actors, as many of which run at a time as this machine has cores."""
    import ray

    ray.init(address="local", num_cpus=sum(COUNTS) + cpus, include_dashboard=False, object_store_memory=100 << 20,
             log_to_driver=False, logging_level="ERROR")  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _pool(kind: str, count: int, options: argparse.Namespace) -> Iterator[Any]:
    ray = "local" if kind == "actors" else None
    with gathered(Opening(options.bundle, ("cpu",), 1), ray=ray, processes=count) as crew:
        assert crew is not None, "asked for"
        with crew.pool(Opens(crew.opening, options.stride), print) as pool:
            pool.open()
            yield pool


def _driver(explainer: kcompiler.Explainer, jobs: Sequence[Job], what: str, stride: int) -> float:
    """Pictures a second of one process, which reads the next picture meanwhile."""
    start = time.perf_counter()
    if what == "maps":
        for job in jobs:
            explainer.explain(np.load(job.path), stride=stride)
    else:
        call = replace(call_of(explainer, stride), say=lambda *_, **__: None)
        with folders._read_ahead(call, jobs) as read:
            for job in jobs:
                explain_picture(call, job, read)
    return len(jobs) / (time.perf_counter() - start)


def _print(rates: Measured, seconds: Measured, memory: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    print("| workers | maps/s | of one process | CPU s a map | files/s | of one process | CPU s a file | MB each | in all, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, count in dict.fromkeys(key[1:] for key in rates):
        cells = []
        for what in ("maps", "files"):
            rate = statistics.median(rates[what, kind, count])
            ratios = sorted(a / b for a, b in zip(rates[what, kind, count], rates[what, DRIVER, 1], strict=True))
            taken = statistics.median(seconds[what, kind, count])
            cells += [f"{rate:.3g}", f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})", f"{taken:.3g}"]
        if held := memory.get((kind, count)):
            mapped = max(each["weights mapped"] for each in held)
            cells += [
                f"{statistics.fmean(each['rss'] for each in held):.0f}",
                f"{mapped + sum(each['anonymous'] for each in held):.0f}",
            ]
        print(f"| {kind if kind == DRIVER else f'{count} {kind}'} | {' | '.join(cells)} |")
    for (kind, count), held in memory.items():
        print(f"{count} {kind}: {[{name: round(value) for name, value in each.items()} for each in held]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pictures", type=int, default=24, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--stride", type=int, default=8, metavar="S", help="(default: %(default)s)")
    parser.add_argument("--count", type=int, nargs="+", default=COUNTS, metavar="N", help="numbers of workers (default: 1 2 4)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
