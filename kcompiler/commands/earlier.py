"""What an earlier call of ``kcompiler explain`` left of a picture's maps: whole, to be gone on with, or to be made again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from kcompiler.commands.pictures import Job, target_of
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.maps.stored import has_scores, is_whole


@dataclass(frozen=True, slots=True)
class Saved:
    """A map that an earlier call saved with the same settings.

    Attributes:
        heat_map: its scores can be used.
        over: nothing is left to do: all positions were evaluated, and all files that the record names are there, unaltered.
    """

    heat_map: HeatMap
    over: bool


def saved_maps(job: Job, top: int | None, settings: Mapping[str, object], *, force: bool) -> list[Saved]:
    """The maps of a picture that an earlier call saved, to go on with. Those that are damaged are left out: they are made again.

    Args:
        job: the picture.
        top: number of the largest outputs, if these are explained.
        settings: all that determines the scores.
        force: maps of other settings are left out, too.

    Raises:
        UsageError: a map was made with other settings.
        ImageError: what has a record's name is none.
    """
    found = (_saved(job.folder / f"{stem}.json", settings, force=force) for stem in saved_stems(job, top))
    return [one for one in found if one is not None]


def saved_stems(job: Job, top: int | None) -> list[str]:
    """Start of the names of a picture's results: one, or with ``top`` one for each target that is there."""
    if top is None:
        return [job.stem]
    found = (target_of(record.stem, job.stem) for record in job.folder.glob(f"{escape(job.stem)}.*.json"))
    return [f"{job.stem}.{number}" for number in sorted(number for number in found if number is not None)]


def is_left_over(record: Path) -> bool:
    """Whether files that have a map's names are known to be a map's: there is its record, or at least its raw scores."""
    return record.is_file() or has_scores(record)


def _saved(record: Path, settings: Mapping[str, object], *, force: bool) -> Saved | None:
    if not record.is_file():
        return None
    if _settings(record) != json.loads(json.dumps(settings)):
        if force:
            return None
        raise UsageError(
            f"{record}: is of other settings, so it cannot be resumed; choose another folder, or drop --resume, or replace it "
            "(--force)"
        )
    whole = is_whole(record)
    try:
        heat_map = HeatMap.load(record)
    except ImageError:
        if whole:
            raise
        return None
    return Saved(heat_map, whole and heat_map.complete)


def _settings(record: Path) -> object:
    try:
        content = json.loads(record.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"{record}: is no record of a heat map ({error}); remove it, or choose another folder") from error
    return content.get("settings") if isinstance(content, dict) else None


def all_over(saved: Sequence[Saved], count: int) -> bool:
    """Whether so many maps are there, and nothing is left to do of them."""
    return len(saved) == count and all(one.over for one in saved)
