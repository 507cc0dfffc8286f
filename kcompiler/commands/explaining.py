"""The explanation of one picture: evaluates what is missing, and writes map, overlay and record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Protocol

import typer

import kcompiler
from kcompiler.commands.input_files import Shown, read_shown
from kcompiler.commands.pictures import Job, target_of
from kcompiler.commands.request import PictureBox, machine_record, region_of, settings_record
from kcompiler.runtime.bundle.files import check_replaceable
from kcompiler.runtime.errors import UsageError
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
    earlier, settings = _earlier(call, job)
    count = call.top or 1
    if len(earlier) == count and all(heat_map.complete for heat_map in earlier):
        call.say(f"{job.path}: complete already")
        return False
    if call.top is None:
        for result in job.results:
            check_replaceable(result, force=call.force or bool(earlier))
    shown = (read or call.read)(job)
    region = region_of(call.region, shown.view)
    request = replace(call.request, region=region, progress=call.progress)
    writer = _Writer(call, job, shown, _details(call, settings, region), {heat_map.target for heat_map in earlier})
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
        files = writer.save(heat_map, force=call.force)
        how = f"{_how(heat_map)} in {heat_map.seconds:.1f} s; " if call.top is None else ""
        call.say(f"{job.path}: {heat_map.title}; {how}{', '.join(map(str, files))}")
        for warning in heat_map.warnings:
            call.say(f"{job.path}: warning: {warning}", error=True)
    return True


def _details(call: Call, settings: dict[str, object], region: tuple[int, int, int, int] | None) -> dict[str, object]:
    both = None if region is None or call.region is None else {"picture": list(call.region), "model": list(region)}
    return {"settings": settings, "machine": machine_record(call.explainer), "region": both}


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the maps of a picture; those of ``earlier`` targets replace what an earlier call saved."""

    call: Call
    job: Job
    shown: Shown
    details: dict[str, object]
    earlier: set[int]

    def save(self, heat_map: HeatMap, *, force: bool) -> list[Path]:
        stem = self.job.stem if self.call.top is None else f"{self.job.stem}.{heat_map.target}"
        force = force or (heat_map.target in self.earlier if self.call.top is not None else bool(self.earlier))
        return heat_map.save(
            self.job.folder, stem, picture=self.shown.picture, view=self.shown.view, style=self.call.style, details=self.details,
            force=force,
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


def _earlier(call: Call, job: Job) -> tuple[list[HeatMap], dict[str, object]]:
    """The maps that an earlier call saved, to go on with, and the settings.

    Raises:
        UsageError: they were made with other settings.
    """
    settings = call.settings(job)
    if not call.resume:
        return [], settings
    saved = (_saved(job.folder, stem, settings) for stem in saved_stems(job, call.top))
    return [heat_map for heat_map in saved if heat_map is not None], settings


def saved_stems(job: Job, top: int | None) -> list[str]:
    """Start of the names of a picture's results: one, or with ``top`` one for each target that is there."""
    if top is None:
        return [job.stem]
    found = (target_of(record.stem, job.stem) for record in job.folder.glob(f"{escape(job.stem)}.*.json"))
    return [f"{job.stem}.{number}" for number in sorted(number for number in found if number is not None)]


def _saved(folder: Path, stem: str, settings: dict[str, object]) -> HeatMap | None:
    record_file = folder / f"{stem}.json"
    if not (record_file.is_file() and (folder / f"{stem}.npy").is_file()):
        return None
    heat_map = HeatMap.load(record_file)
    if json.loads(record_file.read_text(encoding="utf-8")).get("settings") != json.loads(json.dumps(settings)):
        raise UsageError(f"{record_file}: is of other settings, so it cannot be resumed; choose another folder, or drop --resume")
    return heat_map
