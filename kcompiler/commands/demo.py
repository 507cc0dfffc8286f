"""``kcompiler demo``: compiles the shipped classifier, explains the shipped picture, and compares with full inference."""

from __future__ import annotations

import json
import time
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import kcompiler
from kcompiler.commands import options
from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.files import check_replaceable
from kcompiler.runtime.errors import CheckFailed
from kcompiler.runtime.exactness.compare import compare
from kcompiler.runtime.inference.full import BATCH, REORDERINGS
from kcompiler.runtime.inputs.images import fill_image
from kcompiler.runtime.inputs.positions import Grid, batches
from kcompiler.runtime.progress import Reporter


def run_demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("demo-output"),
    patch: options.Patch = "16",
    stride: Annotated[int, typer.Option(help="Pixels between neighbouring positions.")] = 4,
    force: options.Force = False,
) -> None:
    """Run the whole path on a shipped example: a small classifier of retinal pictures, and a picture with a lesion."""
    with as_file(files("kcompiler.demo")) as folder:
        truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        for suffix in (".npy", ".png", ".json"):
            check_replaceable(out / f"picture{suffix}", force=force)
        typer.echo("compiling the classifier")
        start = time.perf_counter()
        bundle = kcompiler.compile(
            folder / "demo.onnx", patch=options.patch_size(patch), preprocessing=folder / "preprocessing.json"
        )
        compiled_in = time.perf_counter() - start
        explainer = kcompiler.load(bundle)
        picture = explainer.read_image(folder / "picture.png")
    typer.echo("explaining the picture, compiled")
    heat_map = explainer.explain(picture.tensor, stride=stride, progress=True)
    typer.echo("the same by full inference")
    full, full_seconds = _full_inference(explainer, picture.tensor, heat_map)
    files_written = heat_map.save(out, "picture", picture=picture.source, view=picture.view, force=force)

    console = Console()
    table = Table("", "seconds", "ms a position", box=None)
    count = heat_map.scores.size
    for name, seconds in (("full inference (batch 8)", full_seconds), ("compiled", heat_map.seconds)):
        table.add_row(name, f"{seconds:.2f}", f"{1e3 * seconds / count:.2f}")
    console.print(table)
    y, x = peak(heat_map)
    top, left, bottom, right = truth["box"]
    where = "inside" if top <= y < bottom and left <= x < right else "outside"
    typer.echo(
        f"{full_seconds / heat_map.seconds:.1f}x faster, R "
        f"{bundle.report.redundancy_tight:.2f}; compiled once in {compiled_in:.1f} s"
    )
    typer.echo(
        f"predicted {heat_map.label!r}, true {truth['label']!r}; "
        f"largest drop with the patch centred at (y {y}, x {x}), {where} the lesion's box {truth['box']}"
    )
    comparison = compare(
        heat_map.scores.reshape(-1, 1), full.reshape(-1, 1), partial(_reordered, explainer, picture.tensor, heat_map)
    )
    if not comparison.agrees:
        raise CheckFailed(f"the heat map disagrees with full inference: {comparison.reason}")
    typer.echo(
        f"equal to full inference at all {count} positions: "
        f"largest difference {comparison.largest_error:.2g}, map range {np.ptp(full):.3g}"
    )
    typer.echo(f"written: {', '.join(map(str, files_written))}")


def peak(heat_map: kcompiler.HeatMap) -> tuple[int, int]:
    """(y, x) in pixels of the centre of the patch with the largest drop."""
    row, col = np.unravel_index(int(np.nanargmax(heat_map.drop)), heat_map.scores.shape)
    return int(heat_map.ys[row]) + heat_map.patch[0] // 2, int(heat_map.xs[col]) + heat_map.patch[1] // 2


def _full_inference(explainer: kcompiler.Explainer, image: FloatArray, heat_map: kcompiler.HeatMap) -> tuple[FloatArray, float]:
    """The map by full inference, float32 [rows, cols], and its time in seconds."""
    positions = Grid(heat_map.ys, heat_map.xs).positions
    reference, fill = explainer.full_inference(), fill_image(0.0, explainer.manifest.shape)
    reporter = Reporter(True, len(positions))
    scores = []
    for part in batches(len(positions), BATCH):
        outputs = reference.outputs(image, fill, positions[part], heat_map.patch)
        scores.append(outputs[:, heat_map.target])
        reporter.advance(len(outputs))
    reporter.close()
    return np.concatenate(scores).reshape(heat_map.scores.shape), reporter.seconds


def _reordered(
    explainer: kcompiler.Explainer, image: FloatArray, heat_map: kcompiler.HeatMap, numbers: IntArray
) -> list[FloatArray]:
    """Scores of full inference in other orders of sums, float32 [n, 1] each, at the positions with these indices."""
    positions, fill = Grid(heat_map.ys, heat_map.xs).positions[numbers], fill_image(0.0, explainer.manifest.shape)
    orders = (explainer.full_inference(order=order) for order in REORDERINGS)
    return [full.outputs(image, fill, positions, heat_map.patch)[:, heat_map.target : heat_map.target + 1] for full in orders]
