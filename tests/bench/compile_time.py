"""The table of compile times: seconds to a verified bundle, the share of each stage, and how far the forecast was off.

python tests/bench/compile_time.py [NAME[@SIDE]...] [--rounds N] [--patch P] [--calibrate]

Networks with random weights, and the demo model, each compiled in a process of its own, imports not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from exact_speed import DEMO, exported

import kcompiler
from kcompiler.runtime.measuring.check import COMPARE
from kcompiler.stages import CHECK, CHOOSE, NORMALISE, READ, WRITE

MODELS = (DEMO, "mobilenet_v2", "efficientnet_b0", "resnet18", "densenet121", "inception_v3", "vgg16")
STAGES = (READ, NORMALISE, CHOOSE, CHECK, WRITE, COMPARE)
ASKED = (0.25, 0.5)
"""Parts of the time at which the forecast is looked at."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.of is not None:
        print(json.dumps(_compiled(options.of, options.patch, calibrate=options.calibrate)))
        return 0
    stages = [*STAGES, "the rest"] if options.calibrate else STAGES
    asked = " and ".join(f"{part:.0%}" for part in ASKED)
    print(f"| network | seconds | {' | '.join(stages)} | forecast of the rest over the rest, at {asked} |")
    print("|" + "---|" * (len(stages) + 3))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            path = exported(name, Path(folder))
            command = [sys.executable, __file__, "--of", path, "--patch", options.patch, *["--calibrate"] * options.calibrate]
            rounds = [
                json.loads(subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True).stdout)
                for _ in range(options.rounds)
            ]
            print(_line(name, rounds, stages), flush=True)
    return 0


def _compiled(model: Path, patch: int, *, calibrate: bool) -> list[tuple[str, float, float]]:
    """(stage, seconds so far, forecast of the remaining ones) at each report of a compilation."""
    points: list[kcompiler.Progress] = []
    kcompiler.compile(model, patch=patch, calibrate=calibrate, progress=points.append)
    return [(point.stage, point.seconds, point.remaining if point.done else 0.0) for point in points]


def _line(name: str, rounds: Sequence[list[tuple[str, float, float]]], stages: Sequence[str]) -> str:
    """A row of the table, of medians."""
    ends = [points[-1][1] for points in rounds]
    shares = {stage: statistics.median(_share(points, stage) for points in rounds) for stage in STAGES}
    shares["the rest"] = 1 - sum(shares.values())
    off = [statistics.median(_off(points, part) for points in rounds) for part in ASKED]
    cells = (f"{shares[stage]:.0%}" for stage in stages)
    return f"| {name} | {statistics.median(ends):.1f} | {' | '.join(cells)} | {', '.join(f'{ratio:.2f}' for ratio in off)} |"


def _share(points: Sequence[tuple[str, float, float]], stage: str) -> float:
    spent = sum(after[1] - before[1] for before, after in pairwise(points) if before[0] == stage)
    return spent / points[-1][1]


def _off(points: Sequence[tuple[str, float, float]], part: float) -> float:
    """The forecast at the last report before this part of the time, over what remained."""
    end = points[-1][1]
    _, seconds, remaining = next(point for point in reversed(points) if point[1] <= part * end)
    return remaining / (end - seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="NAME[@SIDE]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
