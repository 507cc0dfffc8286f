"""How good a heat map is by the time: the anytime order of exact explanations, batch by batch.

python tests/bench/anytime.py BUNDLE IMAGE... [--stride 4] [--budget S] [-o DIR]

Writes DIR/anytime.csv and DIR/anytime.png. The time is that of an explanation which draws a map after every batch; beside
it, what one takes that draws the last map only.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import kcompiler
from kcompiler.commands.request import read_input
from kcompiler.runtime.arrays import DoubleArray
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.sampling.quality import ssim

POINTS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Of an image, after each batch, [batches] each: seconds, positions evaluated, SSIM with the exact map.

    ``exact_seconds`` is what the exact map took; ``positions`` those of the grid.
    """

    name: str
    seconds: DoubleArray
    evaluated: DoubleArray
    ssim: DoubleArray
    exact_seconds: float
    positions: int

    def at(self, times: DoubleArray, values: DoubleArray) -> DoubleArray:
        """``values`` after the last batch that was done by each of ``times``; NaN before the first."""
        last = np.searchsorted(self.seconds, times, side="right") - 1
        return np.where(last >= 0, values[np.maximum(last, 0)], np.nan)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    explainer = kcompiler.load(options.bundle, threads=options.threads)
    curves = [curve_of(explainer, path, options.stride, options.budget) for path in options.images]
    files = {"anytime.csv": as_csv(curves), "anytime.png": plot(curves)}
    replace_files(options.output, files, force=True)
    console = Console()
    console.print(table_of(curves))
    for curve in curves:
        console.print(
            f"{curve.name}: {curve.evaluated[-1]:.0f} of {curve.positions} positions and {len(curve.seconds)} maps in "
            f"{curve.seconds[-1]:.2f} s; the exact map alone took {curve.exact_seconds:.2f} s",
            soft_wrap=True,
        )


def curve_of(explainer: kcompiler.Explainer, path: Path, stride: int, budget: float | None) -> Curve:
    image = read_input(explainer, path)
    explainer.explain(image, stride=stride, budget=1e-3)  # to warm up
    exact = explainer.explain(image, stride=stride)
    # All maps are kept before any is scored: seconds go on while the caller holds a map.
    maps = list(explainer.refinements(image, stride=stride, target=exact.target, budget=budget))
    return Curve(
        name=path.name,
        seconds=np.array([one.seconds for one in maps]),
        evaluated=np.array([one.evaluated for one in maps], np.float64),
        ssim=np.array([ssim(one.scores, exact.scores) for one in maps]),
        exact_seconds=exact.seconds,
        positions=exact.scores.size,
    )


def points_in_time(curves: Sequence[Curve], count: int) -> DoubleArray:
    """From the first at which every image has a map to the last at which one is still under way, in equal ratios."""
    first, last = max(curve.seconds[0] for curve in curves), max(curve.seconds[-1] for curve in curves)
    times: DoubleArray = np.geomspace(first, last, count)
    times[0], times[-1] = first, last  # not before it by rounding
    return times


def medians(curves: Sequence[Curve], times: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Over the images: share of the positions evaluated, and SSIM."""
    shares = np.median([curve.at(times, curve.evaluated / curve.positions) for curve in curves], axis=0)
    return shares, np.median([curve.at(times, curve.ssim) for curve in curves], axis=0)


def table_of(curves: Sequence[Curve]) -> Table:
    times = points_in_time(curves, POINTS)
    exact = np.median([curve.exact_seconds for curve in curves])
    worst = np.min([curve.at(times, curve.ssim) for curve in curves], axis=0)
    table = Table("seconds", "of the exact map's", "positions", "SSIM, median", "least", box=None, title=f"images: {len(curves)}")
    for time, share, middle, least in zip(times, *medians(curves, times), worst, strict=True):
        table.add_row(f"{time:.2f}", f"{time / exact:.0%}", f"{share:.1%}", f"{middle:.3f}", f"{least:.3f}")
    return table


def as_csv(curves: Sequence[Curve]) -> bytes:
    """Every batch of every image; of several images the medians, too."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("image", "seconds", "share", "ssim"))
    for curve in curves:
        rows = zip(curve.seconds, curve.evaluated / curve.positions, curve.ssim, strict=True)
        writer.writerows((curve.name, f"{a:.4f}", f"{b:.5f}", f"{c:.5f}") for a, b, c in rows)
    if len(curves) > 1:
        times = points_in_time(curves, 10 * POINTS)
        rows = zip(times, *medians(curves, times), strict=True)
        writer.writerows(("(median)", f"{a:.4f}", f"{b:.5f}", f"{c:.5f}") for a, b, c in rows)
    return stream.getvalue().encode()


def plot(curves: Sequence[Curve]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve in curves:
        axes.step(curve.seconds, curve.ssim, where="post", color="0.7" if len(curves) > 1 else "C0", linewidth=1)
    if len(curves) > 1:
        times = points_in_time(curves, 20 * POINTS)
        axes.step(
            times, medians(curves, times)[1], where="post", color="C0", linewidth=2, label=f"median of {len(curves)} images"
        )
    exact = float(np.median([curve.exact_seconds for curve in curves]))
    axes.axvline(exact, color="C1", linestyle="--", label="exact map, drawn once")
    axes.set(xlabel="seconds", ylabel="SSIM with the exact map", xlim=(0, None), ylim=(None, 1.01))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    drawing = io.BytesIO()
    canvas.print_png(drawing)  # type: ignore[no-untyped-call]
    return drawing.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("images", type=Path, nargs="+", metavar="IMAGE", help="pictures, or preprocessed arrays (.npy)")
    add("--stride", type=int, default=4, metavar="S", help="pixels between positions (default: %(default)s)")
    add("--budget", type=float, metavar="S", help="seconds an image (default: until every position is evaluated)")
    add("-o", "--output", type=Path, default=Path("anytime"), metavar="DIR", help="folder for the results (default: %(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
