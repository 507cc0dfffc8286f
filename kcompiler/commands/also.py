"""Further files that ``kcompiler explain`` writes on request: maps in the formats and coordinates of medical pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kcompiler.commands.input_files import Shown
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.inputs.formats import format_of
from kcompiler.runtime.inputs.selection import Selection
from kcompiler.runtime.maps.as_dicom import parametric_map_of, secondary_capture_of
from kcompiler.runtime.maps.as_nifti import nifti_of
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.maps.style import Style


class Also(StrEnum):
    """A kind of file."""

    NIFTI = "nifti"
    PARAMETRIC_MAP = "parametric-map"
    SECONDARY_CAPTURE = "secondary-capture"


SUFFIXES: Mapping[Also, str] = {
    Also.NIFTI: ".drop.nii.gz", Also.PARAMETRIC_MAP: ".drop.dcm", Also.SECONDARY_CAPTURE: ".overlay.dcm",
}  # fmt: skip
"""What comes after the name of a picture's results."""
SOURCES: Mapping[Also, str] = {Also.NIFTI: "NIfTI", Also.PARAMETRIC_MAP: "DICOM", Also.SECONDARY_CAPTURE: "DICOM"}
"""Formats of the pictures that there are such files of."""
AlsoOption = Annotated[
    list[Also] | None,
    typer.Option(help="Write the map of a NIfTI slice as NIfTI, of a DICOM picture as parametric map, the overlay as capture."),
]


def check_also(wanted: Sequence[Also], path: Path) -> None:
    """Raises an :class:`ImageError` if a picture is of no format that a wanted file can be made of."""
    for kind in wanted:
        if (found := format_of(path).name) != SOURCES[kind]:
            raise ImageError(
                f"{path}: is {found}, so there is no {kind} of its map; leave out --also {kind}, or give {SOURCES[kind]}"
            )


def also_files(
    wanted: Sequence[Also], path: Path, selection: Selection, heat_map: HeatMap, shown: Shown, style: Style
) -> dict[str, bytes]:
    """Contents of the wanted files by their suffixes.

    Raises:
        ImageError: a file cannot be made of this picture.
    """
    make = {
        Also.NIFTI: lambda: nifti_of(heat_map, path, selection, shown.view),
        Also.PARAMETRIC_MAP: lambda: parametric_map_of(heat_map, path, selection, shown.view),
        Also.SECONDARY_CAPTURE: lambda: secondary_capture_of(heat_map.overlay(shown.picture, view=shown.view, style=style), path),
    }
    return {SUFFIXES[kind]: make[kind]() for kind in wanted}
