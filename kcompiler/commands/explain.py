"""``kcompiler explain``: reads pictures; writes raw maps, overlays and records."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kcompiler.commands import options
from kcompiler.commands.also import SUFFIXES, AlsoOption
from kcompiler.commands.compat import Tool, explain_as
from kcompiler.commands.explaining import Call, explain_picture
from kcompiler.commands.folder import Failure, explain_folder
from kcompiler.commands.input_files import Axis, Frame, Slice, Window, selected
from kcompiler.commands.pictures import Found, Job, check_inputs_kept, check_output, find
from kcompiler.commands.report import write_report
from kcompiler.commands.request import check_target, parse_box, parse_fill, parse_quality, parse_range, parse_target
from kcompiler.pool.crew import Crew, Opening, gathered
from kcompiler.pool.grid import SpreadGrid
from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.bundle.files import check_replaceable, check_writable
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.request import Request


def explain_images(
    bundle: options.BundlePath,
    images: Annotated[
        list[Path],
        typer.Argument(help="Pictures, DICOM, NIfTI, arrays (.npy, .npz), or folders of them.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.", show_default=False)],
    stride: options.StrideOption = "4",
    target: options.Target = None,
    top: Annotated[int | None, typer.Option(help="Maps of this many of the largest outputs, instead of one.")] = None,
    fill: options.FillOption = None,
    region: Annotated[
        str | None, typer.Option(metavar="TOP,LEFT,BOTTOM,RIGHT", help="Only patches inside this box, in the picture's pixels.")
    ] = None,
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
    html: Annotated[
        Path | None, typer.Option(help="Write a page of the maps here: one file that needs no network.", show_default=False)
    ] = None,
    also: AlsoOption = None,
    range_: options.Range = None,
    colours: options.Colours = "RdBu_r",
    opacity: options.Opacity = 0.75,
    outline: options.Outline = None,
    patch: options.OfPatch = None,
    provider: options.Provider = None,
    threads: options.Threads = None,
    ray: options.Ray = None,
    processes: options.Processes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted call with the same settings stopped.")
    ] = False,
    force: options.Force = False,
) -> None:
    """Explain pictures: per image a raw map (.npy), an overlay (.png) and a record of everything (.json)."""
    wanted = tuple(dict.fromkeys(also or ()))
    found = find(images, out, [SUFFIXES[kind] for kind in wanted])
    jobs = found.jobs
    check_writable(out)
    for folder in {job.folder for job in jobs} | {out}:
        recover(folder)
    check_output(jobs, out, replace=force or resume)
    if force or resume:
        check_inputs_kept(jobs)
    if html is not None:
        check_replaceable(html, force=force or resume)
        if compat is not None:
            raise UsageError(f"--html is of this tool's maps; leave out --compat {compat}")
    style = Style(parse_range(range_), colours, opacity, outline)
    if compat is not None and (found.folders or ray is not None or processes is not None):
        raise UsageError(f"--compat {compat} takes files, no folders, and runs here alone")
    if compat is not None and wanted:
        raise UsageError(f"--compat {compat} writes raw maps alone; leave out --also")
    opening = Opening(bundle, None if provider is None else tuple(provider), threads, options.of_patch(patch))
    with gathered(opening, ray=ray, processes=processes) as crew:
        explainer = opening.load() if crew is None else crew.load()
        if top is not None and (target is not None or quality != "exact" or budget is not None):
            raise UsageError("--top makes exact maps of the largest outputs; leave out --target, --quality and --budget")
        request = Request(
            stride=options.stride(stride),
            target=parse_target(explainer, target) if top is None else None,
            fill=parse_fill(explainer, bundle, fill),
            edges=edges,
            channel=channel,
            quality=parse_quality(quality),
            score=score,
            budget=budget,
            selection=selected(window, frame, axis, slice_),
        )
        if top is None:
            check_target(explainer, request.target)
        call = Call(explainer, request, parse_box(region), style, top, resume, force, wanted)
        failures = _explain_all(call, found, out, compat, crew)
        if html is not None:
            write_report(html, call, jobs, failures)
    if failures:
        raise typer.Exit(1)


def _explain_all(call: Call, found: Found, out: Path, compat: Tool | None, crew: Crew | None) -> list[Failure]:
    """Explains pictures here, or by a crew: many pictures one each, a single one's positions by all of it."""
    if crew is not None and crew.shares_pictures and len(found.jobs) == 1:
        with closing(SpreadGrid(crew, partial(typer.echo, err=True))) as spread:
            return _explain_files(replace(call, request=replace(call.request, spread=spread)), found.jobs, None)
    if found.folders or crew is not None:
        return explain_folder(call, found, out, crew)
    return _explain_files(call, found.jobs, compat)


def _explain_files(call: Call, jobs: Sequence[Job], compat: Tool | None) -> list[Failure]:
    """Explains pictures that were named one by one: none may fail."""
    for job in jobs:
        call.read(job)  # reads all pictures before explaining the first, so that an unreadable picture fails early
    for job in jobs:
        if compat is not None:
            explain_as(compat, call, job)
        else:
            explain_picture(call, job)
    return []
