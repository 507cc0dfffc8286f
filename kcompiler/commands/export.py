"""``kcompiler export``: writes a bundle's map model, image in, heat map out, with its card and a test vector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kcompiler.commands import options
from kcompiler.commands.request import parse_box
from kcompiler.runtime.deployed import MODEL


def export_model(
    bundle: options.BundlePath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.", show_default=False)],
    stride: options.StrideOption = "4",
    region: Annotated[str | None, typer.Option(metavar="TOP,LEFT,BOTTOM,RIGHT", help="Only patches inside this box.")] = None,
    edges: options.EdgesOption = "valid",
    score: Annotated[
        Literal["auto", "output", "logit"], typer.Option(help="What is scored; auto: the logit where there is one.")
    ] = "auto",
    variant: Annotated[str, typer.Option(help="Of the bundle: exact, or an approximate one.")] = "exact",
    force: options.Force = False,
) -> None:
    """Write one ONNX model that takes an image and gives its heat map, for any program that has ONNX Runtime."""
    from kcompiler.deployment import export_map

    card = export_map(
        bundle,
        out,
        stride=options.stride(stride),
        region=parse_box(region),
        edges=edges,
        score=score,
        variant=variant,
        force=force,
    )
    megabytes = sum(record.bytes for record in card.files.values()) / 1e6
    typer.echo(
        f"{out / MODEL}: {len(card.ys)} x {len(card.xs)} positions in {len(card.batches)} batches, {megabytes:.1f} MB; "
        f"agrees with the driver on {sum(card.batches[: card.test.batches[1]])} of them"
    )
