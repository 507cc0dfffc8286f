"""``kcompiler explain``: reads pictures; writes raw maps, overlays and records."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Annotated

import typer

import kcompiler
from kcompiler.commands import options
from kcompiler.commands.compat import Tool, explain_as
from kcompiler.commands.input_files import Axis, Frame, Slice, Window, read_pair, selected
from kcompiler.commands.request import (
    machine_record,
    parse_box,
    parse_fill,
    parse_quality,
    parse_target,
    settings_record,
)
from kcompiler.runtime.bundle.files import check_replaceable
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.explanation import explained
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.request import Request
from kcompiler.runtime.several import explained_targets

SUFFIXES = (".npy", ".png", ".json")


def explain_images(
    bundle: options.BundlePath,
    images: Annotated[list[Path], typer.Argument(help="Pictures, DICOM, NIfTI, or arrays (.npy, .npz).", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.", show_default=False)],
    stride: options.StrideOption = "4",
    target: options.Target = None,
    top: Annotated[int | None, typer.Option(help="Maps of this many of the largest outputs, instead of one.")] = None,
    fill: options.FillOption = None,
    region: Annotated[str | None, typer.Option(metavar="TOP,LEFT,BOTTOM,RIGHT", help="Only patches inside this box.")] = None,
    edges: options.EdgesOption = "valid",
    channel: Annotated[int | None, typer.Option(help="The only channel that is covered. Default: all.")] = None,
    quality: Annotated[
        str, typer.Option(metavar="exact | SSIM", help="'exact', or an SSIM that the bundle has been tuned for.")
    ] = "exact",
    score: options.ScoreOption = "auto",
    budget: Annotated[
        float | None, typer.Option(help="Seconds an image: then the best map so far is written, whatever the quality asked for.")
    ] = None,
    compat: Annotated[
        Tool | None,
        typer.Option(help="Make the map as this tool does, at image size: raw numbers (.npy) and a record (.json)."),
    ] = None,
    window: Window = None,
    frame: Frame = None,
    axis: Axis = None,
    slice_: Slice = None,
    provider: options.Provider = None,
    threads: options.Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted call with the same settings stopped.")
    ] = False,
    force: options.Force = False,
) -> None:
    """Explain pictures: per image a raw map (.npy), an overlay (.png) and a record of everything (.json)."""
    _check_output(images, out, replace=force or resume)
    if force or resume:
        _check_inputs_kept(images, out)
    explainer = kcompiler.load(bundle, providers=provider, threads=threads)
    request = Request(
        stride=options.stride(stride),
        target=parse_target(explainer, target),
        fill=parse_fill(explainer, bundle, fill),
        region=parse_box(region),
        edges=edges,
        channel=channel,
        quality=parse_quality(quality),
        score=score,
        budget=budget,
        selection=selected(window, frame, axis, slice_),
    )
    for path in images:
        read_pair(
            explainer, path, request.selection
        )  # reads all pictures before explaining the first, so that an unreadable picture fails early
    for path in images:
        if compat is not None:
            explain_as(compat, explainer, request, path, out, top=top, resume=resume, force=force)
        elif top is not None:
            _explain_largest(explainer, request, path, top, out, resume=resume, force=force)
        else:
            _explain_one(explainer, request, path, out, resume=resume, force=force)


def _explain_one(explainer: kcompiler.Explainer, request: Request, path: Path, out: Path, *, resume: bool, force: bool) -> None:
    settings = settings_record(explainer.manifest, request, path)
    earlier = _earlier(out, path.stem, settings) if resume else None
    force = force or earlier is not None
    for suffix in SUFFIXES:
        check_replaceable(out / f"{path.stem}{suffix}", force=force)
    if earlier is not None and earlier.complete:
        typer.echo(f"{path}: complete already")
        return
    tensor, pixels = read_pair(explainer, path, request.selection)
    details = {"settings": settings, "machine": machine_record(explainer)}
    try:
        heat_map = explained(explainer, tensor, replace(request, progress=True, resume=earlier))
    except kcompiler.Interrupted as interrupted:
        interrupted.heat_map.save(out, path.stem, picture=pixels, details=details, force=True)
        typer.echo(_kept(path, interrupted, out), err=True)
        raise
    files = heat_map.save(out, path.stem, picture=pixels, details=details, force=force)
    typer.echo(f"{path}: {heat_map.title}; {_how(heat_map)} in {heat_map.seconds:.1f} s; {', '.join(map(str, files))}")
    for warning in heat_map.warnings:
        typer.echo(f"{path}: warning: {warning}", err=True)


def _explain_largest(
    explainer: kcompiler.Explainer, request: Request, path: Path, count: int, out: Path, *, resume: bool, force: bool
) -> None:
    """Explains the ``count`` largest outputs; each map has its own files."""
    if request.target is not None or request.quality != "exact" or request.budget is not None:
        raise UsageError("--top makes exact maps of the largest outputs; leave out --target, --quality and --budget")
    settings = {**settings_record(explainer.manifest, request, path), "top": count}
    records = out.glob(f"{escape(path.stem)}.*.json")
    targets = [number for record in records if (number := _target(record.stem, path.stem)) is not None]
    stems = [f"{path.stem}.{number}" for number in sorted(targets)] if resume else []
    earlier = [saved for stem in stems if (saved := _earlier(out, stem, settings)) is not None]
    earlier_targets = {heat_map.target for heat_map in earlier}
    if len(earlier) == count and all(heat_map.complete for heat_map in earlier):
        typer.echo(f"{path}: complete already")
        return
    tensor, pixels = read_pair(explainer, path, request.selection)
    details = {"settings": settings, "machine": machine_record(explainer)}

    def save(heat_map: HeatMap) -> list[Path]:
        stem, replace_files = f"{path.stem}.{heat_map.target}", force or heat_map.target in earlier_targets
        return heat_map.save(out, stem, picture=pixels, details=details, force=replace_files)

    try:
        heat_maps = explained_targets(explainer, tensor, count, replace(request, progress=True, resume=earlier))
    except kcompiler.Interrupted as interrupted:
        for heat_map in interrupted.heat_maps:
            save(heat_map)
        typer.echo(_kept(path, interrupted, out), err=True)
        raise
    for heat_map in heat_maps:
        files = save(heat_map)
        typer.echo(f"{path}: {heat_map.title}; {', '.join(map(str, files))}")


def _target(name: str, stem: str) -> int | None:
    """The target in a file name that --top writes for a picture with this stem; None for other file names."""
    number = name.removeprefix(f"{stem}.")
    return int(number) if number.isdecimal() and number != name else None


def _kept(path: Path, interrupted: kcompiler.Interrupted, out: Path) -> str:
    return f"{path}: {interrupted.heat_map.evaluated} positions kept in {out}; the same call with --resume goes on"


def _how(heat_map: HeatMap) -> str:
    """How many positions were evaluated, and by which variant and method."""
    if heat_map.exact:
        return f"{heat_map.evaluated} positions"
    plan = heat_map.plan
    end = "" if heat_map.complete else ", ended by the budget"
    return (
        f"{heat_map.evaluated} of {heat_map.scores.size} positions by the variant {plan.variant}, chosen by {plan.method}{end},"
    )


def _check_inputs_kept(images: list[Path], out: Path) -> None:
    """Raises a :class:`UsageError` if results would overwrite an image that is to be explained."""
    results = {(out / f"{path.stem}{suffix}").absolute() for path in images for suffix in SUFFIXES}
    stems = {path.stem for path in images}
    for path in images:
        result_of_top = path.absolute().parent == out.absolute() and any(_target(path.stem, stem) is not None for stem in stems)
        same = path.absolute() in results or any(file.exists() and file.samefile(path) for file in results if path.exists())
        if result_of_top or same:
            raise UsageError(f"{path}: would be overwritten by its own results; choose another folder")


def _check_output(images: list[Path], out: Path, *, replace: bool) -> None:
    twice = [stem for stem, count in Counter(path.stem for path in images).items() if count > 1]
    if twice:
        raise UsageError(f"two images are named {twice[0]!r} and would write the same files; explain them into different folders")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file, expected a folder")
    if out.is_dir() and any(out.iterdir()) and not replace:
        raise UsageError(f"{out}: exists and is not empty; choose another folder, or allow overwriting (--force)")


def _earlier(out: Path, stem: str, settings: dict[str, object]) -> HeatMap | None:
    """The map that an earlier call saved; None if there is none.

    Raises:
        UsageError: it was made with other settings.
    """
    record_file = out / f"{stem}.json"
    if not (record_file.is_file() and (out / f"{stem}.npy").is_file()):
        return None
    heat_map = HeatMap.load(record_file)
    if json.loads(record_file.read_text(encoding="utf-8")).get("settings") != json.loads(json.dumps(settings)):
        raise UsageError(f"{record_file}: is of other settings, so it cannot be resumed; choose another folder, or drop --resume")
    return heat_map
