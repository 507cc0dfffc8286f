"""``kcompiler export``: writes a bundle's map model, image in, heat map out, with its card and a test vector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import kcompiler
from kcompiler.commands import options
from kcompiler.commands.request import parse_box
from kcompiler.runtime.deployed import MODEL
from kcompiler.runtime.errors import UsageError


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
    drill_down: Annotated[
        str | None,
        typer.Option(metavar="STEP,SHARE", help="Evaluate every STEP-th row and column, and around the most sensitive SHARE."),
    ] = None,
    quality: Annotated[float | None, typer.Option(help="SSIM of a plan from 'tune --for-export'.")] = None,
    preprocess: Annotated[bool, typer.Option("--preprocess", help="The model takes pictures of any size.")] = False,
    single_file: Annotated[bool, typer.Option("--single-file", help="Weights in the model, not beside it.")] = False,
    patch: options.OfPatch = None,
    force: options.Force = False,
) -> None:
    """Write one ONNX model that takes an image and gives its heat map, for any program that has ONNX Runtime."""
    card = kcompiler.export(
        bundle,
        out,
        stride=options.stride(stride),
        region=parse_box(region),
        edges=edges,
        score=score,
        variant=variant,
        drill_down=_parsed(drill_down),
        quality=quality,
        preprocess=preprocess,
        single_file=single_file,
        patch=options.of_patch(patch),
        force=force,
    )
    megabytes = sum(record.bytes for record in card.files.values()) / 1e6
    typer.echo(
        f"{out / MODEL}: {len(card.ys)} x {len(card.xs)} positions in {len(card.batches)} batches, {megabytes:.1f} MB; "
        f"agrees with the driver on {sum(card.batches[: card.test.batches[1]])} of them"
    )


def _parsed(drill_down: str | None) -> tuple[int, float] | None:
    """STEP,SHARE as numbers."""
    if drill_down is None:
        return None
    step, _, share = drill_down.partition(",")
    try:
        return int(step), float(share)
    except ValueError:
        raise UsageError(f"--drill-down {drill_down!r}, expected STEP,SHARE such as 4,0.25") from None
