"""The table of families: what is incremental, what that is bound to give, what it gives, and whether it is exact.

python tests/bench/families.py [NAME...] [--exporter torchscript dynamo] [--rounds N] [--json FILE]

Exports the reference networks with random weights, takes the light models of the onnx wheel (other exporters, weights drawn
in), compiles each for patches of 16 pixels and measures it against full inference at its best batch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import kcompiler
from kcompiler.runtime.measuring.bench import benchmark

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from light_models import LIGHT, with_random_weights  # noqa: E402 - the tests' own

LIGHT_MODELS = (
    "light_bvlc_alexnet", "light_densenet121", "light_inception_v1", "light_inception_v2", "light_resnet50", "light_shufflenet",
    "light_squeezenet", "light_vgg19", "light_zfnet512",
)  # fmt: skip
CONVOLUTIONAL = (
    "alexnet", "vgg16", "vgg19", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "squeezenet1_0", "googlenet",
    "inception_v3", "densenet121", "mobilenet_v1", "mobilenet_v2", "shufflenet_v2_x1_0", "mnasnet1_0", "regnet_x_400mf",
    "convnext_tiny",
)  # fmt: skip
OTHERS = ("regnet_y_400mf", "mobilenet_v3_small", "efficientnet_b0", "vit_b_16", "swin_t")
"""With gates or attention: correct, and said to be dense from there on."""
PATCH, STRIDE, SAMPLED = 16, 4, 160
FAST, NEVER_UNDER = 0.9, 0.97


@dataclass(frozen=True, slots=True)
class Row:
    """A model's figures.

    Attributes:
        undisturbed: fastest full inference over the fastest compiled, of the rounds.
        side_by_side: speed-up over full inference with several batches at once, one thread each.
        ends: where incremental inference ends, and why.
    """

    model: str
    source: str
    nodes: int
    incremental: int
    redundancy_paper: float
    redundancy: float
    predicted: float
    speedup: float
    slowest: float
    fastest: float
    undisturbed: float
    side_by_side: float | None
    error: float
    agrees: bool
    ends: str


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, source, path in models(options, Path(folder)):
            rows.append(measured(name, source, path, options.rounds))
            print(line(rows[-1]), flush=True)
            path.unlink()
            if options.json is not None:
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    disagree = [row.model for row in rows if not row.agrees]
    slower = [row.model for row in rows if row.speedup < NEVER_UNDER]
    short = [row.model for row in rows if row.model not in OTHERS and row.speedup < FAST * row.redundancy]
    print(f"not exact: {', '.join(disagree) or 'none'}; under {NEVER_UNDER}: {', '.join(slower) or 'none'}; ", end="")
    print(f"convolutional and under {FAST} R: {', '.join(short) or 'none'}")
    return 1 if disagree or slower else 0


def models(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """(name, where the graph comes from, file), one after the other."""
    for name in options.names:
        if name in LIGHT_MODELS:
            yield name, "onnx wheel", with_random_weights(LIGHT / f"{name}.onnx", folder / f"{name}.onnx")
            continue
        for exporter in options.exporter:
            path = folder / f"{name}-{exporter}.onnx"
            command = [sys.executable, "-m", "models.export", name, "-o", path, "--exporter", exporter]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                print(f"{name}, {exporter}: cannot be exported: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            yield name, exporter, path


def measured(name: str, source: str, path: Path, rounds: int) -> Row:
    bundle = kcompiler.compile(path, patch=PATCH)
    report = bundle.report
    found = benchmark(kcompiler.load(bundle), stride=STRIDE, sample=SAMPLED, rounds=rounds, memory=False)
    dense = [node for node in report.nodes if not node.incremental and not node.follows]
    ends = f"{dense[0].node} ({dense[0].operator}): {dense[0].reason}" if dense else ""
    return Row(
        name, source, len(report.nodes), sum(node.incremental for node in report.nodes), report.redundancy_paper,
        report.redundancy_tight, report.predicted_speedup, found.speedup, found.slowest_speedup, found.fastest_speedup,
        found.undisturbed_speedup, found.speedup_side_by_side, found.largest_error, found.agrees, ends,
    )  # fmt: skip


def line(row: Row) -> str:
    return (
        f"| {row.model} | {row.source} | {row.incremental} / {row.nodes - row.incremental} | {row.redundancy_paper:.2f} | "
        f"{row.redundancy:.2f} | {row.speedup:.2f}x ({row.slowest:.2f}-{row.fastest:.2f}) | {row.undisturbed:.2f}x | "
        f"{'-' if row.side_by_side is None else f'{row.side_by_side:.2f}x'} | {row.error:.0e}"
        f"{'' if row.agrees else ' DISAGREES'} | {row.ends} |"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    every = (*CONVOLUTIONAL, *OTHERS, *LIGHT_MODELS)
    parser.add_argument("names", nargs="*", default=every, metavar="NAME", help=f"networks: {', '.join(every)} (default: all)")
    parser.add_argument(
        "--exporter", nargs="+", choices=("torchscript", "dynamo"), default=["torchscript"], help="of torch's two"
    )
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
