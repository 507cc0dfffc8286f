"""The files that ``kcompiler explain`` writes, in one archive."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

from kcompiler.commands.request import machine_record, settings_record
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.request import Request
from kcompiler.runtime.scratch import scratch_folder
from kcompiler.serving.pictures import Subject


@dataclass(eq=False)
class Made:
    """A map that was made for a page by an explainer, whole or so far."""

    explainer: Explainer
    heat_map: HeatMap
    subject: Subject
    request: Request


def archive(maps: Sequence[Made]) -> bytes:
    """A zip archive with raw scores, overlay and record of each map; those after the first are of boxes."""
    result = io.BytesIO()
    with scratch_folder("save") as folder, zipfile.ZipFile(result, "w") as packed:
        for number, made in enumerate(maps):
            settings = settings_record(made.explainer.manifest, made.request, made.subject.path)
            name = f"{made.subject.path.stem}{'.box' if number else ''}"
            details = {"settings": settings, "machine": machine_record(made.explainer), "region": _regions(made)}
            subject = made.subject
            for path in made.heat_map.save(folder, name, picture=subject.source, view=subject.view, details=details):
                packed.write(path, path.name, zipfile.ZIP_DEFLATED)
    return result.getvalue()


def _regions(made: Made) -> dict[str, object] | None:
    """The region in the picture's pixels and in the model's, as ``explain`` records it."""
    if made.request.region is None:
        return None
    box = made.subject.view.box_in_picture(made.request.region)
    return {"picture": [round(edge) for edge in box], "model": list(made.request.region)}
