"""Heat maps as DICOM objects of the study that the picture is of, made by highdicom.

A parametric map holds numbers at the picture's pixels, with its place in the patient; a secondary capture is the drawn overlay,
for viewers that know no parametric maps. Both are of the source's patient and study, in a series of their own. Nothing else of
the source is copied: no private attributes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.optional import optional
from kcompiler.runtime.inputs.selection import Selection
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.heatmap import HeatMap

MAKER = "kcompiler"
SERIES = 9000
"""Number of the series: beyond those of scanners."""
LONGEST_DESCRIPTION = 64
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def parametric_map_of(heat_map: HeatMap, source: Path, selection: Selection, view: View) -> bytes:
    """The drop at each pixel of ``source``, float32, NaN where no patch reached, as a Parametric Map.

    Raises:
        ImageError: the source is no DICOM file, belongs to no study, or does not say where in the patient it lies; or highdicom
            is absent.
    """
    with _readable(source):
        modules = ("highdicom", "highdicom.pm", "highdicom.content", "pydicom.sr.codedict")
        highdicom, pm, content, codes = (optional(module, source, "DICOM") for module in modules)
        header = _header(source)
        plane = _plane(header, selection.frame or 0, source)
        drop = heat_map.drop[np.isfinite(heat_map.drop)].astype(np.float64)
        what = heat_map.words.bar.partition("\n")[0]
        mapping = pm.RealWorldValueMapping(
            lut_label="DROP", lut_explanation=what[:LONGEST_DESCRIPTION], unit=codes.codes.UCUM.NoUnits,
            value_range=(float(drop.min(initial=0)), float(drop.max(initial=0))), slope=1.0, intercept=0.0,
        )  # fmt: skip
        limit = max(float(np.abs(drop).max(initial=0)), 1e-6)
        made = pm.ParametricMap(
            [header], heat_map.over(view)[None], **_series(highdicom), manufacturer_model_name=MAKER,
            software_versions=version("kcompiler"), device_serial_number="0", contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping], window_center=0.0, window_width=2 * limit,
            content_description=f"{heat_map.label}: {what}"[:LONGEST_DESCRIPTION], content_label="OCCLUSION_MAP",
            pixel_measures=content.PixelMeasuresSequence(pixel_spacing=plane.spacing, slice_thickness=plane.thickness),
            plane_orientation=content.PlaneOrientationSequence("PATIENT", plane.orientation),
            plane_positions=[content.PlanePositionSequence("PATIENT", plane.position)],
        )  # fmt: skip
        return _written(made)


def secondary_capture_of(drawing: Image.Image, source: Path) -> bytes:
    """A drawn overlay, as a Secondary Capture in colour.

    Raises:
        ImageError: the source is no DICOM file, or belongs to no study; or highdicom is absent.
    """
    with _readable(source):
        highdicom, sc = (optional(f"highdicom{part}", source, "DICOM") for part in ("", ".sc"))
        header = _header(source)
        made = sc.SCImage.from_ref_dataset(
            header, np.asarray(drawing.convert("RGB")), "RGB", 8, "PATIENT", **_series(highdicom), patient_orientation=("L", "P")
        )
        made.PatientOrientation = header.get("PatientOrientation")  # unknown where the source does not say it
        made.BurnedInAnnotation, made.SeriesDescription = "NO", "Occlusion heat map"
        return _written(made)


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    with foreign(lambda why: ImageError(f"{source}: no DICOM map can be made of it ({why})")), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about attributes of the source
        yield


def _header(source: Path) -> Any:
    header = optional("pydicom", source, "DICOM").dcmread(source, force=True, stop_before_pixels=True)
    missing = [name for name in NEEDED if not header.get(name)]
    if missing:
        raise ImageError(f"{source}: has no {missing[0]}, which DICOM maps refer to; expected a DICOM picture of a study")
    return header


def _series(highdicom: Any) -> dict[str, Any]:
    return {
        "series_instance_uid": highdicom.UID(), "series_number": SERIES, "sop_instance_uid": highdicom.UID(),
        "instance_number": 1, "manufacturer": MAKER,
    }  # fmt: skip


def _written(made: Any) -> bytes:
    result = BytesIO()
    made.save_as(result, enforce_file_format=True)
    return result.getvalue()


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a picture lies in the patient, in mm; see DICOM PS3.3 C.7.6.2.

    Attributes:
        position: of the first pixel's centre.
        orientation: direction cosines of the rows, and of the columns.
        spacing: between rows, and between columns.
        thickness: of the slice.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float


def _plane(header: Any, frame: int, source: Path) -> Plane:
    """The plane of a frame: by the header's own attributes, or by the functional groups of an enhanced multi-frame object.

    Raises:
        ImageError: the source does not say it.
    """
    groups = [header, *header.get("SharedFunctionalGroupsSequence", ())]
    if len(frames := header.get("PerFrameFunctionalGroupsSequence", ())) > frame:
        groups.append(frames[frame])
    parts = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    sources = [header, *(part for group in groups for name in parts for part in group.get(name, ()))]

    def of(name: str) -> tuple[float, ...] | None:
        found = next((part.get(name) for part in sources if part.get(name)), None)
        return None if found is None else tuple(float(value) for value in np.atleast_1d(found))

    position, orientation, spacing = of("ImagePositionPatient"), of("ImageOrientationPatient"), of("PixelSpacing")
    if position is None or orientation is None or spacing is None or not header.get("FrameOfReferenceUID"):
        raise ImageError(
            f"{source}: does not say where in the patient it lies (as radiographs do not), so there is no parametric map of it; "
            "take secondary-capture"
        )
    return Plane(position, orientation, spacing, (of("SliceThickness") or (0.0,))[0])
