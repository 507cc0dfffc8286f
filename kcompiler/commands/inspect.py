"""``kcompiler inspect``: reports how the compiler treats each node of a model, or of a bundle."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from kcompiler.commands import options
from kcompiler.commands.inspect_nodes import node_table, where_it_ends
from kcompiler.commands.reading import AS_DECLARED, Reading, with_reading
from kcompiler.runtime.bundle.files import check_replaceable, check_writable, replace_files
from kcompiler.runtime.bundle.manifest_file import read_manifest
from kcompiler.runtime.bundle.report import Report
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.progress import Stages
from kcompiler.runtime.scratch import scratch_folder


@with_reading
def inspect_model(
    context: typer.Context,
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX models, or bundles.", show_default=False)],
    patch: options.Patch = "16",
    reading: Reading = AS_DECLARED,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON; of several models by file name.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw how regions grow over depth, and redundancy against patch size, into this file (.png, .svg, .pdf)."
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Show what becomes of each node: incremental or dense, how, over which region, why, and what that is predicted to give."""
    if picture is not None:
        _check_picture(picture, force=force)
    source = context.get_parameter_source("patch")
    compile_settings = [*(["patch"] if source is not None and source.name != "DEFAULT" else []), *reading.given]
    for model in models:
        if compile_settings and model.is_dir():
            option = f"--{compile_settings[0].replace('_', '-')}"
            raise UsageError(
                f"{model}: is a bundle, and its report is of what it was compiled for; leave out {option}, or "
                "inspect the ONNX model"
            )
    reports = {model.name: _report(model, patch, reading) for model in models}
    if len(reports) != len(models):
        raise UsageError("two of the models have the same file name; rename one, so that they can be told apart")
    if json:
        dumped = [report.model_dump(mode="json") for report in reports.values()]
        typer.echo(json_module.dumps(dumped[0] if len(dumped) == 1 else dict(zip(reports, dumped, strict=True)), indent=1))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 160
        for name, report in reports.items():
            console.print(page(name, report))
    if picture is not None:
        from kcompiler.commands.inspect_picture import draw

        replace_files(picture.parent, {picture.name: draw(reports, picture.suffix[1:])}, force=force)
        typer.echo(f"{picture}: written", err=json)


def _check_picture(picture: Path, *, force: bool) -> None:
    if picture.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--picture is {picture}, expected a file name that ends in .png, .svg or .pdf")
    if not picture.parent.is_dir():
        raise UsageError(f"{picture}: there is no folder {picture.parent}")
    check_writable(picture.parent)
    check_replaceable(picture, force=force)


def _report(model: Path, patch: str, reading: Reading) -> Report:
    if model.is_dir():
        return read_manifest(model).report
    from kcompiler.answered import answered
    from kcompiler.options import options_of
    from kcompiler.pipeline import analyse
    from kcompiler.stages import SHARES, analysing

    chosen = options_of(patch=options.patch_size(patch), **reading.arguments)
    with Stages(sys.stderr.isatty(), SHARES) as stages, answered(model), scratch_folder("inspect") as scratch:
        stages.expect(*analysing(chosen))
        return analyse(model, chosen, scratch, stages=stages).report


def page(name: str, report: Report) -> Group:
    """All sections of the report of a model."""
    title = Text(f"\n{name}", style="bold")
    notes = [f"note: {note}" for note in report.notes]
    return Group(title, headline(report), *notes, "", node_table(report), "", where_it_ends(report), "",
                 redundancy_table(report), "", operator_table(report), "", summary(report))  # fmt: skip


def headline(report: Report) -> str:
    """The predicted speed-up, or why the model runs whole, in a line."""
    incremental = sum(node.incremental for node in report.nodes)
    if not incremental:
        return f"runs whole: {report.nodes[0].reason}" if report.nodes else "has no nodes"
    compiled, full = report.predicted_seconds * 1e3, report.predicted_full_seconds * 1e3
    return (
        f"{incremental} of {len(report.nodes)} nodes incremental; predicted {compiled:.2f} ms a position where full inference "
        f"takes {full:.2f} ms: {report.predicted_speedup:.1f}x"
    )


def redundancy_table(report: Report) -> Table:
    table = Table("redundancy R by patch", *(f"{r.patch} x {r.patch}" for r in report.redundancies), box=None)
    table.add_row("worst position, the paper's counting", *(f"{r.paper:.2f}" for r in report.redundancies))
    tight = f"mean of all positions, stride {report.redundancy_stride}"
    table.add_row(tight, *(f"{r.tight:.2f}" for r in report.redundancies))
    return table


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
    error = "" if report.largest_error is None else f"largest error at compile time {report.largest_error:.2g}; "
    return (
        f"{report.parameters:,} parameters; {report.flops / 1e9:.2f} GFLOP an image in convolutions and fully connected layers\n"
        f"redundancy R, full over recomputed FLOPs: {report.redundancy_paper:.2f} in the paper's counting (worst position), "
        f"{report.redundancy_tight:.2f} tight (mean over all positions, stride {report.redundancy_stride})\n"
        f"{error}transforms are predicted to add an error of {report.transform_error:.1g} of the change\n"
        f"cached activations {report.table_bytes / 1e6:.0f} MB; "
        f"about {report.bytes_per_position / 1e6:.1f} MB a position of a batch"
    )
