"""``kcompiler explain --html``: what was written, as one page: pictures, maps, numbers, an index of many."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from kcompiler.commands.earlier import saved_stems
from kcompiler.commands.explaining import Call
from kcompiler.commands.folder import Failure
from kcompiler.commands.pictures import Job
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.maps.page import Row, Shown, page

Details = Mapping[str, object]


def write_report(path: Path, call: Call, jobs: Sequence[Job], failures: Sequence[Failure]) -> None:
    """Writes the page of all maps of the pictures that did not fail, from their files."""
    failed = {failure.picture for failure in failures}
    done = [job for job in jobs if str(job.path) not in failed]
    names = _names(done)
    maps = [_Map(call, job, names[job], job.folder / f"{stem}.json") for job in done for stem in saved_stems(job, call.top)]
    rows = [each.row for each in maps]
    title = f"Occlusion maps of {call.explainer.manifest.model}" if len(rows) != 1 else f"{rows[0].name}: {rows[0].label}"
    listed = [asdict(failure) for failure in failures]
    parts = page(title, rows, (each.shown for each in maps), call.style, listed)
    replace_files(path.parent, {path.name: "".join(parts).encode()}, force=True)
    typer.echo(f"{path}: {len(rows)} map{'' if len(rows) == 1 else 's'}")


def _names(jobs: Sequence[Job]) -> dict[Job, str]:
    """Pictures by name; by their paths if two have one name."""
    several = len({job.path.name for job in jobs}) < len(jobs)
    return {job: job.path.as_posix() if several else job.path.name for job in jobs}


@dataclass(frozen=True, slots=True)
class _Map:
    """A map that was written.

    Attributes:
        job: the picture; ``name`` is what the page calls it.
        file: the record.
    """

    call: Call
    job: Job
    name: str
    file: Path

    @property
    def record(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        return content

    @property
    def row(self) -> Row:
        """Its line in the index, for which no picture is read."""
        if (kept := self.record.get("view")) is None:
            return self.shown.row
        view = View(**{name: tuple(values) for name, values in kept.items()})
        return HeatMap.load(self.file).in_report(self.name, None, view).row

    @property
    def shown(self) -> Shown:
        read = self.call.read(self.job)
        return HeatMap.load(self.file).in_report(self.name, read.picture, read.view, _details(self.record))


def _details(record: Mapping[str, object]) -> Details:
    """Parameters and versions in a record, each on a line of its own."""
    parts = ("settings", "machine", "plan", "region", "view")
    lines = {}
    for part in parts:
        content = record.get(part)
        if isinstance(content, dict):
            lines.update({f"{part}: {name}": _text(value) for name, value in content.items()})
    return {**lines, "seconds": _text(record.get("seconds"))}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
