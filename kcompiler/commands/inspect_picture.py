"""The picture of ``kcompiler inspect``: the growth of regions over depth, and the redundancy ratio by patch size."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from kcompiler.runtime.bundle.report import Report


def draw(reports: Mapping[str, Report], kind: str) -> bytes:
    """A picture of ``reports``, by name of the model, as a file of a ``kind``: "png", "svg" or "pdf".

    Left: the mean share of its map that a patch changes, for each layer, over the share of the work before the layer. Right: the
    redundancy ratio by patch size, as in figure 3 of the paper (Nakandala, Kumar, Papakonstantinou, SIGMOD 2019), and for exact
    spans.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    depth, ratio = figure.subplots(1, 2)
    colours = [f"C{number % 10}" for number in range(len(reports))]
    for (name, report), colour in zip(reports.items(), colours, strict=True):
        layers = [node for node in report.nodes if node.flops]
        work = np.cumsum([node.flops for node in layers])
        depths = np.r_[0.0, work / work[-1]] if len(layers) else np.array([0.0, 1.0])
        shares = [node.share for node in layers] or [1.0]
        depth.step(depths, [shares[0], *shares], where="pre", color=colour)
        sides = [redundancy.patch for redundancy in report.redundancies]
        ratio.plot(sides, [redundancy.paper for redundancy in report.redundancies], "o-", color=colour, label=_stem(name))
        ratio.plot(sides, [redundancy.tight for redundancy in report.redundancies], ":", color=colour)
    depth.set(xlabel="share of the work done before", ylabel="share of the map that a patch changes", ylim=(0, 1.02), xlim=(0, 1))
    ratio.set(xlabel="patch, pixels a side", ylabel="redundancy: full over recomputed FLOPs", xscale="log", yscale="log")
    sides = sorted({redundancy.patch for report in reports.values() for redundancy in report.redundancies})
    ratio.set_xticks(sides, [str(side) for side in sides])
    ticks = [1, 2, 3, 5, 10, 20]
    ratio.set_yticks(ticks, [str(tick) for tick in ticks])
    ratio.minorticks_off()
    ratio.plot([], [], "k-", label="worst position (the paper)")
    ratio.plot([], [], "k:", label="mean of all positions")
    figure.legend(*ratio.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    for axes in (depth, ratio):
        axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format=kind)
    return content.getvalue()


def _stem(name: str) -> str:
    return name.removesuffix(".onnx").removesuffix(".kc")
