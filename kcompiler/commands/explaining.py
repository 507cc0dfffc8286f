"""The explanation of one picture: evaluates what is missing, and writes map, overlay and record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import typer

import kcompiler
from kcompiler.commands.also import Also, also_files, check_also
from kcompiler.commands.earlier import all_over, is_left_over, saved_maps
from kcompiler.commands.input_files import Shown, read_shown
from kcompiler.commands.pictures import Job
from kcompiler.commands.request import PictureBox, machine_record, region_of, settings_record
from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.bundle.files import check_replaceable
from kcompiler.runtime.explanation import explained
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.progress import ProgressCallback
from kcompiler.runtime.request import Request
from kcompiler.runtime.several import explained_targets


class Say(Protocol):
    """Prints a line, to stderr if it tells of an error."""

    def __call__(self, text: str, *, error: bool = False) -> None: ...


def echo(text: str, *, error: bool = False) -> None:
    typer.echo(text, err=error)


@dataclass(frozen=True, slots=True)
class Call:
    """What is the same for all pictures of a call.

    Attributes:
        explainer: the compiled model.
        request: settings, except for the region, which is each picture's own.
        region: box in the picture's pixels.
        style: of the overlays.
        top: number of the largest outputs to explain, instead of one.
        resume: go on with maps of an earlier call.
        force: replace existing files.
        also: kinds of further files.
        progress: where progress is reported.
        say: prints a line about a picture.
    """

    explainer: kcompiler.Explainer
    request: Request
    region: PictureBox | None
    style: Style
    top: int | None
    resume: bool
    force: bool
    also: tuple[Also, ...] = ()
    progress: ProgressCallback | bool = True
    say: Say = echo

    def settings(self, job: Job) -> dict[str, object]:
        """All that determines the scores of a picture."""
        settings = settings_record(self.explainer.manifest, self.request, job.path)
        settings["region"] = None if self.region is None else {"picture": list(self.region)}
        return settings if self.top is None else {**settings, "top": self.top}

    def read(self, job: Job) -> Shown:
        return read_shown(self.explainer, job.path, self.request.selection)


def explain_picture(call: Call, job: Job, read: Callable[[Job], Shown] | None = None) -> bool:
    """Explains a picture and writes its results; whether there was anything left to do.

    Args:
        read: gives the picture; None reads it now.

    Raises:
        UsageError: files are in the way, or an earlier map is of other settings.
        ImageError: the picture cannot be read.
        Interrupted: on Ctrl-C; what was evaluated is saved.
    """
    recover(job.folder)
    settings = call.settings(job)
    saved = saved_maps(job, call.top, settings, force=call.force) if call.resume else []
    there = call.top is not None or all(result.exists() for result in job.results)  # also what --also asks for
    if there and all_over(saved, call.top or 1):
        call.say(f"{job.path}: complete already")
        return False
    if call.top is None:
        for result in job.results:
            check_replaceable(result, force=_may_replace(call, job, job.stem))
    check_also(call.also, job.path)
    shown, earlier = (read or call.read)(job), [one.heat_map for one in saved]
    region = region_of(call.region, shown.view)
    request = replace(call.request, region=region, progress=call.progress)
    writer = _Writer(call, job, shown, _details(call, settings, region))
    try:
        if call.top is None:
            request = replace(request, resume=earlier[0] if earlier else None)
            heat_maps = [explained(call.explainer, shown.tensor, request)]
        else:
            heat_maps = explained_targets(call.explainer, shown.tensor, call.top, replace(request, resume=earlier))
    except kcompiler.Interrupted as interrupted:
        for heat_map in interrupted.heat_maps:
            writer.save(heat_map, force=True)
        evaluated = interrupted.heat_map.evaluated
        call.say(f"{job.path}: {evaluated} positions kept in {job.folder}; the same call with --resume goes on", error=True)
        raise
    for heat_map in heat_maps:
        files = writer.save(heat_map)
        how = f"{_how(heat_map)} in {heat_map.seconds:.1f} s; " if call.top is None else ""
        call.say(f"{job.path}: {heat_map.title}; {how}{', '.join(map(str, files))}")
        for warning in heat_map.warnings:
            call.say(f"{job.path}: warning: {warning}", error=True)
    return True


def _details(call: Call, settings: dict[str, object], region: tuple[int, int, int, int] | None) -> dict[str, object]:
    both = None if region is None or call.region is None else {"picture": list(call.region), "model": list(region)}
    return {"settings": settings, "machine": machine_record(call.explainer), "region": both}


def _may_replace(call: Call, job: Job, stem: str) -> bool:
    """Whether files of these names may be replaced: the call says so, or goes on with what an earlier one left of them."""
    return call.force or (call.resume and is_left_over(job.folder / f"{stem}.json"))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the maps of a picture."""

    call: Call
    job: Job
    shown: Shown
    details: dict[str, object]

    def save(self, heat_map: HeatMap, *, force: bool = False) -> list[Path]:
        stem = self.job.stem if self.call.top is None else f"{self.job.stem}.{heat_map.target}"
        call, shown = self.call, self.shown
        files = also_files(call.also, self.job.path, call.request.selection, heat_map, shown, call.style)
        return heat_map.save(
            self.job.folder, stem, picture=shown.picture, view=shown.view, style=call.style, details=self.details, files=files,
            force=force or _may_replace(call, self.job, stem),
        )  # fmt: skip


def _how(heat_map: HeatMap) -> str:
    """How many positions were evaluated, and by which variant and method."""
    if heat_map.exact:
        return f"{heat_map.evaluated} positions"
    plan = heat_map.plan
    end = "" if heat_map.complete else ", ended by the budget"
    return (
        f"{heat_map.evaluated} of {heat_map.scores.size} positions by the variant {plan.variant}, chosen by {plan.method}{end},"
    )
