"""The table of map models: one ONNX model against the Python driver, in time, load time, memory, size and bits.

python tests/bench/map_model.py BUNDLE... [--variant NAME] [--stride S] [--batches N] [--rounds N] [--threads N] [--json FILE]

Both evaluate the first batches of the same grid with as many threads: the map model by concurrent calls of one session with one
thread, each with a share of the batches. Memory is the peak of the resident set of a process of its own, its maps included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime as ort

import kcompiler
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.deployed import MODEL
from kcompiler.runtime.inference.engine import extents_of
from kcompiler.runtime.inference.schedule import schedule
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import random_image
from kcompiler.runtime.measuring.memory import STATUS
from kcompiler.runtime.measuring.timing import in_turn, ratios

FILL = 0.5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """A bundle's figures.

    Attributes:
        ratio: seconds of the map model over the driver's, the median of the rounds; ``least`` and ``most`` the extremes.
        load: seconds to open: the map model, the driver's two graphs.
        memory: MB at the peak: the map model, the driver.
        size: MB of the map model and its weights, of the bundle.
        same_bits: whether the maps are equal.
    """

    name: str
    ratio: float
    least: float
    most: float
    load: tuple[float, float]
    memory: tuple[float, float]
    size: tuple[float, float]
    same_bits: bool


class MapModel:
    """A map model, run as its card says."""

    def __init__(self, folder: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.enable_mem_pattern, options.log_severity_level = 1, False, 3
        self.session = ort.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
        self.threads = threads
        self.shape = tuple(self.session.get_inputs()[0].shape[1:])

    def map(self, image: FloatArray, batches: int) -> FloatArray:
        """The first ``batches`` batches, shared out over threads."""

        def share(first: int, count: int) -> FloatArray:
            feeds = {
                "image": image,
                "fill": np.full(image.shape[1], FILL, np.float32),
                "target": np.array([-1]),
                "batches": np.array([first, count]),
            }
            found: FloatArray = self.session.run(["map"], feeds)[0]
            return found

        edges = np.linspace(0, batches, self.threads + 1).round().astype(int)
        with ThreadPoolExecutor(self.threads) as pool:
            shares = list(pool.map(share, edges[:-1], np.diff(edges)))
        whole = shares[0]
        for other in shares[1:]:
            whole = np.where(np.isnan(whole), other, whole)
        return whole


class Driver:
    """The Python driver on the same batches."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.explainer = kcompiler.load(folder, providers=["cpu"], threads=options.threads)
        manifest = self.explainer.manifest
        self.shape, self.engine = manifest.shape, self.explainer.engines[options.variant]
        variant = next(one for one in manifest.variants if one.name == options.variant)
        self.positions = make_grid(manifest.shape[1:], manifest.patch, options.stride).positions
        self.parts = schedule(self.positions, extents_of(variant, manifest.patch), min(variant.batch, manifest.largest_batch))
        _, self.output = self.explainer.targets.scored("auto")

    def map(self, image: FloatArray, batches: int) -> FloatArray:
        explainer, engine, parts = self.explainer, self.engine, self.parts[:batches]
        baseline = engine.baseline(image, FILL)
        target = explainer.targets.largest(engine.unoccluded(baseline, self.output))
        scores = np.full(len(self.positions), np.nan, np.float32)
        outputs = engine.evaluate_batches(baseline, [self.positions[part] for part in parts], self.output)
        for part, values in zip(parts, outputs, strict=True):
            scores[part] = values[:, target]
        return scores


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.alone:
        return _alone(options)
    rows = []
    print("| bundle | map model over driver | load, s | memory, MB | size, MB | bits |\n|---|---|---|---|---|---|")
    for bundle in options.bundles:
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(measured(bundle, Path(scratch) / "out", options))
        print(line(rows[-1]), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.same_bits for row in rows) else 1


def measured(bundle: Path, out: Path, options: argparse.Namespace) -> Row:
    card = kcompiler.export(bundle, out, stride=options.stride, variant=options.variant)
    batches = min(options.batches, len(card.batches))
    model, opened = _timed(lambda: MapModel(out, options.threads))
    driver, loaded = _timed(lambda: Driver(bundle, options))
    image = random_image(driver.shape, 0)
    same = np.array_equal(model.map(image, batches).ravel(), driver.map(image, batches), equal_nan=True)
    ways = [lambda: _timed(lambda: model.map(image, batches))[1], lambda: _timed(lambda: driver.map(image, batches))[1]]
    gains = ratios(*in_turn(ways, options.rounds))
    memory = tuple(_peak(kind, bundle, out, batches, options) for kind in ("model", "driver"))
    size = tuple(sum(path.stat().st_size for path in folder.iterdir()) / 1e6 for folder in (out, bundle))
    name = bundle.stem if options.variant == "exact" else f"{bundle.stem}, {options.variant}"
    return Row(
        name, statistics.median(gains), min(gains), max(gains), (opened, loaded), (memory[0], memory[1]),
        (size[0], size[1]), same,
    )  # fmt: skip


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _peak(kind: str, bundle: Path, out: Path, batches: int, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, bundle, "--alone", kind, "--out", out, "--batches", batches]
    command += ["--stride", options.stride, "--threads", options.threads, "--variant", options.variant]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _alone(options: argparse.Namespace) -> int:
    (bundle,) = options.bundles
    of = MapModel(options.out, options.threads) if options.alone == "model" else Driver(bundle, options)
    of.map(random_image(of.shape, 0), options.batches)
    status = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())  # getrusage would report the parent's peak
    print(int(status["VmHWM"].split()[0]) / 1e3)
    return 0


def line(row: Row) -> str:
    load, memory, size = (" / ".join(f"{value:.3g}" for value in pair) for pair in (row.load, row.memory, row.size))
    bits = "the same" if row.same_bits else "OTHERS"
    return f"| {row.name} | {row.ratio:.2f} ({row.least:.2f}-{row.most:.2f}) | {load} | {memory} | {size} | {bits} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--variant", default="exact", metavar="NAME", help="of the bundles (default: %(default)s)")
    parser.add_argument("--stride", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--batches", type=int, default=16, metavar="N", help="at most so many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    parser.add_argument("--alone", choices=("model", "driver"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
