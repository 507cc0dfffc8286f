"""The CUDA path on a machine with a GPU: exactness, speed, what the cost model predicts, ablations; all in a few minutes.

python tests/bench/cuda.py [NETWORK | MODEL.onnx ...] [--seconds S] [--output FOLDER] [--cpu]

Runs from a checkout, whether kcompiler is installed or not. Networks have random weights; they are exported and compiled on cores
that the measurements leave idle. The most important figures come first, each section has a time limit, and what the rest of the
budget does not hold is skipped. Each result is printed when it is measured, and stands in FOLDER/cuda.json after its section. The
table is printed last, and is in FOLDER/cuda.txt; what libraries print is in FOLDER/cuda.log. With ``--cpu`` everything runs on
the CPU at tiny sizes: a rehearsal, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.pop(0)  # this file would hide the package "cuda", which PyTorch imports
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.on_cuda.checkout import environment, importable
from bench.on_cuda.scale import SCALES, Scale
from bench.on_cuda.supervise import Budget, Outcome, Preparations, Worker
from bench.on_cuda.table import table, write

ESTIMATES = {"resnet18": 30.0, "vgg16": 40.0, "demo": 15.0, "inception_v3": 45.0, "mobilenet_v2": 30.0}
OTHER_NETWORK = 30.0
SHORTEST = 5.0
"""Seconds that must be left to go on with a section that failed."""
LIMIT, LIMIT_IF_RESUMED = 2.0, 3.0
"""Time limit of a section over its estimate, and of one of many parts."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the run.

    Attributes:
        name: its kind and arguments, as the worker takes them.
        estimate: seconds that it is expected to take.
        limit: seconds that it may take.
        job: the preparation that it needs, and ``result`` the file of it; empty if it needs none.
        own: whether it has a process of its own.
        last: whether it waits for all sections before it.
        resumed: whether it goes on, in another process, after a result that ended its process or failed the device.
    """

    name: str
    estimate: float
    limit: float
    job: str = ""
    result: str = ""
    own: bool = False
    last: bool = False
    resumed: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    budget = Budget(options.seconds)
    scale = SCALES["cpu" if options.cpu else "cuda"]
    models = [str(Path(name).resolve()) if name.endswith(".onnx") else name for name in options.models or scale.networks]
    outcomes: dict[str, Outcome] = {section.name: Outcome() for section in sections(scale, models)}
    options.output.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="kcompiler-cuda-", ignore_cleanup_errors=True) as scratch:
        try:
            _run(Path(scratch), scale, models, budget, outcomes, options.output)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for outcome in outcomes.values():
                if outcome.state == "waiting":
                    outcome.state, outcome.why = "skipped", outcome.why or "the run ended before it"
            write(options.output, _about(budget, options), outcomes)
            print(f"\n{table(outcomes)}", flush=True)
    print(f"{budget.used:.1f} of {budget.seconds:.0f} s; {options.output / 'cuda.json'}", flush=True)
    return 1 if any(outcome.state == "failed" for outcome in outcomes.values()) else 0


def sections(scale: Scale, models: Sequence[str]) -> Iterator[Section]:
    """All sections, the most important first."""

    def sized(name: str, estimate: float, result: str = "", **others: bool) -> Section:
        job = result.removesuffix(".kc").removesuffix(".ablations")
        limit = (LIMIT_IF_RESUMED if others.get("resumed") else LIMIT) * estimate * scale.share
        return Section(name, estimate * scale.share, max(limit, scale.least_limit), job, result, **others)

    names = [Path(model).stem for model in models]
    yield sized("environment", 4)
    yield sized("rates", 20)
    for name in names:
        yield sized(f"speed {name}", ESTIMATES.get(name, OTHER_NETWORK), f"{name}.kc")
    yield sized(f"kernels {' '.join(names)}", 20, last=True)
    ablated = [sized(f"ablations {name}", 25, f"{name}.ablations.kc", resumed=True) for name in names if name in scale.ablated]
    yield from ablated[:1]
    yield sized("torch", 18, own=True)
    yield from ablated[1:]
    yield sized("torch.compile", 40, own=True, last=True)


def _run(scratch: Path, scale: Scale, models: Sequence[str], budget: Budget, outcomes: dict[str, Outcome], output: Path) -> None:
    """Runs the sections that are ready, in order, while there is time."""
    links, bundles = scratch / "links", scratch / "bundles"
    links.mkdir()
    bundles.mkdir()
    importable(links)
    variables = environment(links)
    jobs = {Path(model).stem: [model, *(scale.classes if Path(model).stem in scale.ablated else ())] for model in models}
    log = output / "cuda.log"
    log.unlink(missing_ok=True)
    workers = {own: Worker(variables, [scale.provider, bundles], log) for own in (False, True)}
    preparations = Preparations(bundles, jobs, variables)
    waiting = list(sections(scale, models))
    try:
        while waiting:
            section = _next(waiting, preparations, budget, outcomes)
            if section is not None:
                _measure(section, workers[section.own], budget, outcomes)
                if section.own:
                    workers[True].stop()
                write(output, {"used": budget.used}, outcomes)
    finally:
        for worker in workers.values():
            worker.stop()
        preparations.stop()


def _next(waiting: list[Section], preparations: Preparations, budget: Budget, outcomes: Mapping[str, Outcome]) -> Section | None:
    """Takes the first section whose preparation is done; ends those that cannot run; waits a moment if none can."""
    for section in list(waiting):
        outcome, left = outcomes[section.name], budget.left
        try:
            ready = not section.job or preparations.ready(section.job, section.result)
        except RuntimeError as why:
            outcome.state, outcome.why = "failed", str(why)
        else:
            if section.estimate <= left:
                if ready and not (section.last and section is not waiting[0]):
                    waiting.remove(section)
                    return section
                continue
            late = "" if ready else f", and {section.result} was not ready"
            outcome.state, outcome.why = (
                "skipped",
                f"{max(left, 0):.1f} s were left{late}, its estimate is {section.estimate:.1f} s",
            )
        print(f"{section.name}: {outcome.state}: {outcome.why}", flush=True)
        waiting.remove(section)
    time.sleep(0.1)
    return None


def _measure(section: Section, worker: Worker, budget: Budget, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[section.name]

    def hear(key: str, value: object, text: str) -> None:
        outcome.values[key], outcome.texts[key] = value, text
        print(f"{budget.used:6.1f} s | {section.name} | {key} | {text}", flush=True)

    outcome.state, outcome.why, before = "partial", "interrupted", budget.used
    limit = min(section.limit, budget.left)
    ended = worker.run(section.name, limit, hear)
    while ended.state == "failed" and section.resumed and (left := limit - (budget.used - before)) > SHORTEST:
        if "failed at" not in ended.why:
            hear(f"number {len(outcome.values) + 1}", {"failed": ended.traceback}, f"failed: {ended.why}")
        ended = worker.run(f"{section.name} {len(outcome.values)}", left, hear)
    outcome.state, outcome.why, outcome.traceback = ended.state, ended.why, ended.traceback
    outcome.seconds = budget.used - before
    print(f"{budget.used:6.1f} s | {section.name} | {ended.state}{': ' if ended.why else ''}{ended.why}", flush=True)


def _about(budget: Budget, options: argparse.Namespace) -> dict[str, object]:
    return {"seconds": budget.seconds, "used": budget.used, "cpu": options.cpu, "arguments": sys.argv[1:]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="NETWORK", help="or an ONNX file (default: five networks)")
    parser.add_argument("--seconds", type=float, default=340.0, metavar="S", help="for everything (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", ".")), metavar="FOLDER", help="of the results")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, at tiny sizes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
