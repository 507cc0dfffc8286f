"""The table of ablations: what each exchange and layout still gives, family by family.

python tests/bench/ablation.py [NAME...] [--switch NAME...] [--rounds N] [--json FILE]

Each switch leaves out one of the things that rest on what is assumed of ONNX Runtime and of the machine (passes/assumed.py).
Models compiled without it are timed against the same compiled with all of them, in turn, in one process. A figure over 1 is
what it gives; a dash, that it changes nothing there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from unittest import mock

from families import CONVOLUTIONAL, LIGHT_MODELS, OTHERS, PATCH, STRIDE, models

import kcompiler
from kcompiler import pipeline
from kcompiler.passes import assumed
from kcompiler.passes.exchange.blocks import fill_blocks
from kcompiler.passes.exchange.commute import convolve_before_pooling, pool_before_convolving
from kcompiler.passes.exchange.distribute import convolve_before_joining, pool_before_joining
from kcompiler.passes.exchange.order import EXCHANGE, Exchange, exchanged
from kcompiler.passes.lowering.layout import Surroundings
from kcompiler.passes.lowering.scaled import Scaled
from kcompiler.runtime.bundle.manifest import INCREMENTAL
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.spread import spread
from kcompiler.runtime.inputs.images import fill_image
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import random_image
from kcompiler.runtime.measuring.timing import FILL, in_turn, ratios, time_compiled

SAMPLED = 320
NEVER = 1 << 40


def _without(*passes: Exchange) -> AbstractContextManager[object]:
    """Compilation without some exchanges."""
    return mock.patch.object(pipeline, "exchanged", partial(exchanged, passes=[one for one in EXCHANGE if one not in passes]))


SWITCHES: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "commute": partial(_without, pool_before_convolving, convolve_before_pooling),
    "distribute": partial(_without, pool_before_joining, convolve_before_joining),
    "blocks": partial(_without, fill_blocks),
    "scaled": lambda: mock.patch.object(Scaled, "then", return_value=None),
    "micro-batches": lambda: mock.patch.object(assumed, "FEWEST_MICROBATCHES", NEVER),
    "pasted in blocks": lambda: mock.patch.object(assumed, "GO_ON_BLOCKED", ()),
    "pooled maps": lambda: mock.patch.object(assumed, "POOLED", 0),
    "copied reads": lambda: mock.patch.object(assumed, "COPIES", NEVER),
    "merged in tiles": lambda: mock.patch.object(Surroundings, "shared_tile", return_value=None),
}
"""What compiles without each."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """A model without one of them.

    Attributes:
        gain: seconds without over seconds with it, the median of the rounds; None if the compiled model is the same.
    """

    model: str
    switch: str
    gain: float | None
    least: float | None
    most: float | None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    ablations: list[Ablation] = []
    print("| network |", " | ".join(options.switch), "|")
    with tempfile.TemporaryDirectory() as folder:
        for name, _, path in models(options, Path(folder)):
            row = [*ablated(name, path, options.switch, options.rounds)]
            print(f"| {name} |", " | ".join(map(cell, row)), "|", flush=True)
            ablations += row
            path.unlink()
            if options.json is not None:
                options.json.write_text(json.dumps([asdict(one) for one in ablations], indent=1) + "\n")
    return 0


def ablated(name: str, path: Path, switches: Sequence[str], rounds: int) -> list[Ablation]:
    """A model without each of ``switches``."""
    whole = compiled(path, nullcontext())
    row = []
    for switch in switches:
        without = compiled(path, SWITCHES[switch]())
        if same_models(whole, without):
            row.append(Ablation(name, switch, None, None, None))
            continue
        seconds = in_turn([timed(kcompiler.load(bundle)) for bundle in (without, whole)], rounds)
        gains = ratios(*seconds)
        row.append(Ablation(name, switch, statistics.median(gains), min(gains), max(gains)))
    return row


def compiled(path: Path, without: AbstractContextManager[object]) -> kcompiler.Bundle:
    with without:
        return kcompiler.compile(path, patch=PATCH)


def same_models(*bundles: kcompiler.Bundle) -> bool:
    first, other = ((bundle.folder / INCREMENTAL).read_bytes() for bundle in bundles)
    return first == other


def timed(explainer: Explainer) -> Callable[[], float]:
    """Runs a sample of the grid's batches; returns the seconds a position."""
    manifest = explainer.manifest
    grid = make_grid(manifest.shape[1:], manifest.patch, STRIDE)
    baseline = explainer.exact.baseline(random_image(manifest.shape, 0), fill_image(FILL, manifest.shape))
    return partial(time_compiled, explainer, baseline, spread(explainer.exact, grid.positions, SAMPLED))


def cell(ablation: Ablation) -> str:
    if ablation.gain is None:
        return "-"
    return f"{ablation.gain:.2f} ({ablation.least:.2f}-{ablation.most:.2f})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    every = (*CONVOLUTIONAL, *OTHERS, *LIGHT_MODELS)
    parser.add_argument("names", nargs="*", default=CONVOLUTIONAL, metavar="NAME", help=f"networks: {', '.join(every)}")
    parser.add_argument("--switch", nargs="+", choices=SWITCHES, default=[*SWITCHES], help="(default: all)")
    parser.add_argument("--exporter", nargs="+", choices=("torchscript", "dynamo"), default=["torchscript"])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
