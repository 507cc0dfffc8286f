"""The table of initialisations: every family that ``models.export`` writes compiles under textbook weights, with transforms.

python tests/bench/initialisations.py [NAME...] [--scheme he xavier orthogonal] [--batch-norm folded kept] [--json FILE]

Per model: the lowerings of its convolutions, how many nodes are incremental, and the largest error over what is allowed, at
compile time's positions and at 64 others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import kcompiler
from kcompiler.runtime.measuring.check import check, sample_positions

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from models.networks import NETWORKS  # noqa: E402 - not installed
from models.random_weights import SCHEMES  # noqa: E402

PATCH, CHECKED = 16, 64


@dataclass(frozen=True, slots=True)
class Row:
    """One model's figures.

    Attributes:
        lowerings: of convolutions, by how many take each; "" are dense.
        relative_error: largest error over the largest output.
        share: largest error over what is allowed, of outputs or of maps.
        whole: why the model runs whole, if so.
    """

    model: str
    scheme: str
    batch_norm: str
    nodes: int
    incremental: int
    lowerings: dict[str, int]
    relative_error: float
    share: float
    agrees: bool
    seconds: float
    whole: str


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for batch_norm, scheme, name in itertools.product(options.batch_norm, options.scheme, options.names):
            path = Path(folder) / f"{name}-{scheme}-{batch_norm}.onnx"
            _export(name, scheme, batch_norm, path)
            if batch_norm == "kept" and b"BatchNormalization" not in path.read_bytes():
                continue  # it has none
            try:
                rows.append(measured(name, scheme, batch_norm, path))
            except kcompiler.KCompilerError as error:
                failed.append(f"{path.name}: {error}")
                print(f"| {name} | {scheme} | {batch_norm} | REFUSED: {error} |", flush=True)
            else:
                print(line(rows[-1]), flush=True)
            path.unlink()
            if options.json is not None:
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    wrong = [f"{row.model}-{row.scheme}-{row.batch_norm}" for row in rows if not row.agrees]
    print(f"refused: {len(failed)}; not exact: {', '.join(wrong) or 'none'}")
    return 1 if failed or wrong else 0


def _export(name: str, scheme: str, batch_norm: str, path: Path) -> None:
    command = [sys.executable, "-m", "models.export", name, "-o", path, "--initialisation", scheme, "--softmax"]
    kept = ["--keep-batch-norm"] if batch_norm == "kept" else []
    subprocess.run([*map(str, command), *kept], cwd=ROOT, check=True, capture_output=True, text=True)


def measured(name: str, scheme: str, batch_norm: str, path: Path) -> Row:
    start = time.perf_counter()
    bundle = kcompiler.compile(path, patch=PATCH)
    seconds = time.perf_counter() - start
    report = bundle.report
    explainer = kcompiler.load(bundle, providers=["cpu"])
    found = check(explainer, sample_positions(explainer.manifest.shape[1:], (PATCH, PATCH), CHECKED, seed=1), seed=1)
    lowerings = Counter(node.lowering for node in report.nodes if node.operator == "Conv")
    whole = report.nodes[-1].reason if explainer.manifest.exact.whole else ""
    return Row(
        name, scheme, batch_norm, len(report.nodes), sum(node.incremental for node in report.nodes), dict(lowerings),
        found.relative_error, max(found.output_error, found.map_error), found.agrees, seconds, whole,
    )  # fmt: skip


def line(row: Row) -> str:
    transforms = sum(count for name, count in row.lowerings.items() if name.startswith("winograd"))
    others = sum(count for name, count in row.lowerings.items() if name and not name.startswith("winograd"))
    return (
        f"| {row.model} | {row.scheme} | {row.batch_norm} | {row.incremental} / {row.nodes} | {transforms} / {others} / "
        f"{row.lowerings.get('', 0)} | {row.relative_error:.1e} | {row.share:.2f}{'' if row.agrees else ' DISAGREES'} | "
        f"{row.seconds:.0f} s | {row.whole} |"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=sorted(NETWORKS), metavar="NAME", help="networks (default: all)")
    parser.add_argument("--scheme", nargs="+", choices=sorted(SCHEMES), default=sorted(SCHEMES))
    parser.add_argument("--batch-norm", nargs="+", choices=("folded", "kept"), default=["folded", "kept"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
