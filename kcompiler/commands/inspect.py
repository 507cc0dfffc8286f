"""``kcompiler inspect``: what the compiler makes of a model, before and after."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kcompiler.commands import options
from kcompiler.runtime.manifest import NodeReport, Report, read_manifest


def inspect_model(
    model: Annotated[Path, typer.Argument(help="ONNX model, or a compiled bundle.", show_default=False)],
    patch: options.Patch = "16",
    input_shape: options.InputShape = None,
    output: options.Output = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show what becomes of each node: incremental or dense, how, over which region, and why."""
    report = _report(model, patch, input_shape, output)
    if json:
        typer.echo(report.model_dump_json(indent=1))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(node_table(report))
    console.print(operator_table(report))
    console.print(summary(report))


def _report(model: Path, patch: str, input_shape: str | None, output: str | None) -> Report:
    if model.is_dir():
        return read_manifest(model).report
    from kcompiler.options import Options
    from kcompiler.pipeline import analyse

    chosen = Options(patch=options.patch_size(patch), input_shape=options.input_shape(input_shape), output=output)
    with tempfile.TemporaryDirectory(prefix="kcompiler-") as scratch:
        return analyse(model, chosen, Path(scratch)).report


def node_table(report: Report) -> Table:
    table = Table("node", "operator", "runs", "map", "largest region", "mean share", "MFLOP", "lowering, or why dense", box=None)
    for node in report.nodes:
        table.add_row(*_row(node))
    return table


def _row(node: NodeReport) -> tuple[str, ...]:
    return (
        node.node,
        node.operator,
        "incremental" if node.incremental else "dense",
        f"{node.map[0]} x {node.map[1]}" if node.map is not None else "",
        f"{node.extent[0]} x {node.extent[1]}" if node.extent is not None else "all",
        f"{node.share:.0%}",
        f"{node.flops / 1e6:.1f}" if node.flops else "",
        node.lowering or node.reason,
    )


def operator_table(report: Report) -> Table:
    stages: tuple[Mapping[str, int], ...] = (
        report.source_operators,
        report.normalised_operators,
        report.incremental_operators,
    )
    table = Table("operators", "source", "normalised", "incremental graph", box=None)
    for operator in sorted(set().union(*stages)):
        table.add_row(operator, *(str(stage.get(operator, "")) for stage in stages))
    table.add_row("all", *(str(sum(stage.values())) for stage in stages))
    return table


def summary(report: Report) -> str:
    incremental = sum(node.incremental for node in report.nodes)
    error = "" if report.largest_error is None else f"; largest error at compile time {report.largest_error:.2g}"
    return (
        f"{incremental} of {len(report.nodes)} nodes incremental{error}\n"
        f"{report.parameters:,} parameters; {report.flops / 1e9:.2f} GFLOP an image in convolutions and fully connected layers\n"
        f"redundancy R, full over recomputed FLOPs: {report.redundancy_paper:.2f} in the paper's counting (worst position), "
        f"{report.redundancy_tight:.2f} tight (mean over all positions, stride {report.redundancy_stride})\n"
        f"predicted speed-up {report.predicted_speedup:.1f}x; transforms are predicted to add an error of "
        f"{report.transform_error:.1g} of the change\n"
        f"cached activations {report.table_bytes / 1e6:.0f} MB; "
        f"about {report.bytes_per_position / 1e6:.1f} MB a position of a batch"
    )
