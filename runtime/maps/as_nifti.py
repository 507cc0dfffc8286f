"""Heat maps as NIfTI: over the slice that was explained, at its place in the scanner's space."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np

from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.nifti import slice_of
from kcompiler.runtime.inputs.optional import optional
from kcompiler.runtime.inputs.selection import Selection
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.heatmap import HeatMap

LONGEST = 79
"""Bytes of a header's description."""


def nifti_of(heat_map: HeatMap, source: Path, selection: Selection, view: View) -> bytes:
    """The drop at each voxel of the slice of ``source`` that was explained, as a .nii.gz file.

    The volume is a single slice, float32, with the source's axes and units, and the affines of that slice; voxels that no patch
    reached are NaN.

    Raises:
        ImageError: the source is no NIfTI volume that can be read, or nibabel is absent.
    """
    nibabel = optional("nibabel", source, "NIfTI")
    with foreign(lambda why: ImageError(f"{source}: not a readable NIfTI volume ({why})")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = nibabel.load(source)
        place = slice_of(volume, selection, source)
        kind = nibabel.Nifti2Image if isinstance(volume.header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        result = kind(np.expand_dims(heat_map.over(view), place.axis), None)
        result.header.set_xyzt_units(*volume.header.get_xyzt_units())
        result.header.set_zooms((*volume.header.get_zooms(), 1.0)[:3])
        _place_slice(result, volume, place.axis, place.index)
        result.header["descrip"] = f"{heat_map.label}: {heat_map.words.bar}".partition("\n")[0].encode()[:LONGEST]
        limit = np.abs(heat_map.drop[np.isfinite(heat_map.drop)]).max(initial=0)
        result.header["cal_min"], result.header["cal_max"] = -limit, limit
        return gzip.compress(result.to_bytes(), mtime=0)


def _place_slice(result: object, volume: object, axis: int, index: int) -> None:
    """Gives ``result`` the coordinates that ``volume`` gives to its slice ``index``."""
    moved = np.eye(4)
    moved[axis, 3] = index
    for name in ("qform", "sform"):
        affine, code = getattr(volume, f"get_{name}")(coded=True)
        if affine is not None:
            getattr(result, f"set_{name}")(affine @ moved, int(code))
