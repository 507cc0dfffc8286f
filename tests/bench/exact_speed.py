"""The README's table of exact speed: networks with random weights, and the demo model, measured in one go.

python tests/bench/exact_speed.py [NAME[@SIDE]...] [--rounds N] [--positions N] [--threads N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEMO = "demo"
MODELS = ("vgg16", "resnet18", "inception_v3", DEMO, "mobilenet_v2", "resnet18@512", "resnet18@1024", "vgg16_gap@224")
"""vgg16_gap@512 takes an hour besides, most of it full inference at every batch size."""
SHOWN = ("1", "8", "16")
"""Batches of full inference that the table has."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            path = exported(model, Path(folder))
            command = [sys.executable, "-P", "-c", "from kcompiler.cli import main; main()", "bench", path, "--json"]
            settings = ["--rounds", options.rounds, "--positions", options.positions]
            settings += ["--threads", options.threads] if options.threads else []
            done = subprocess.run([*map(str, [*command, *settings])], stdout=subprocess.PIPE, text=True, check=True)
            records += [{"name": model, **record} for record in json.loads(done.stdout)]
            print(line(records[-1]), flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(records, indent=1) + "\n")
    return 0


def exported(model: str, folder: Path) -> Path:
    if model == DEMO:
        return ROOT / "models" / "demo" / "demo.onnx"
    name, _, side = model.partition("@")
    path = folder / f"{model}.onnx"
    command = [sys.executable, "-m", "models.export", name, "-o", path, *(["--size", side] if side else [])]
    subprocess.run([*map(str, command)], cwd=ROOT, check=True, capture_output=True)
    return path


def line(record: dict[str, Any]) -> str:
    """A row of the table."""
    full = " / ".join(f"{1e3 * record['full'][size]['median']:.3g}" for size in SHOWN)
    memory = " / ".join(_megabytes(record[f"memory_{path}"]) for path in ("full", "compiled"))
    return (
        f"| {record['name'].partition('@')[0]}, {record['shape'][-1]} | {full} | {1e3 * record['compiled']['median']:.3g} | "
        f"**{record['speedup']:.1f}x** ({record['slowest_speedup']:.1f}-{record['fastest_speedup']:.1f}) | "
        f"{record['redundancy']:.2f} | {record['drill_down']:.1f}x | {record['largest_error']:.1e} | {memory} |"
    )


def _megabytes(memory: dict[str, int] | None) -> str:
    return "-" if memory is None else f"{memory['peak'] / 1e6:.0f} ({memory['private'] / 1e6:.0f})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="NAME[@SIDE]", help=f"(default: {' '.join(MODELS)})")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--positions", type=int, default=400, metavar="N", help="sampled a round (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: one for each physical core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
