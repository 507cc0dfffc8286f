"""NIfTI: a slice of a volume, by a window to 0..255."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.files import LARGEST_PACKED, LARGEST_VOLUME, MOST_DEEP, check_file, check_size, chosen, head
from kcompiler.runtime.inputs.optional import optional
from kcompiler.runtime.inputs.selection import Wanted, planes_of
from kcompiler.runtime.inputs.unpacking import RATIO
from kcompiler.runtime.inputs.windows import windowed

DEFAULT_AXIS = 2
GZIP = b"\x1f\x8b"


def read_nifti(path: Path, wanted: Wanted) -> list[AnyArray]:
    """A slice across ``axis`` (of the array as stored; the last by default), rows along the first axis that remains.

    Values are those of the header's scaling. They are shown by the caller's window or the recipe's, or from the header's cal_min
    to cal_max. Neither orientation nor the size of voxels is applied.
    """
    nibabel = optional("nibabel", path, "NIfTI")
    with foreign(lambda why: ImageError(f"{path}: not a readable NIfTI volume ({why})")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = nibabel.load(path)
        plane = np.asarray(volume.dataobj[_place(volume, wanted, path)], dtype=np.float64)
    if not np.isfinite(plane).all():
        raise ImageError(f"{path}: has numbers that are not finite")
    return planes_of(windowed(plane, _window(volume.header, wanted, path)))


def _place(volume: Any, wanted: Wanted, path: Path) -> tuple[slice | int, ...]:
    """Where the slice lies in the array."""
    shape, kind = tuple(volume.shape), volume.get_data_dtype()
    if kind.kind not in "uif" or not 2 <= len(shape) <= 4:
        raise ImageError(f"{path}: is an array {list(shape)} of {kind}, expected numbers of 2 to 4 axes")
    content = Path(volume.file_map["image"].filename)  # beside the header in a file of its own, in pairs
    check_file(content, "a volume")
    size = content.stat().st_size
    packed = head(content).startswith(GZIP)
    declared = min(LARGEST_PACKED, RATIO * size) if packed else min(LARGEST_VOLUME, size)
    check_size(path, (*shape, kind.itemsize), declared, "bytes")
    spatial, times = (*shape, 1)[:3], (*shape, 1, 1)[3]
    axis = DEFAULT_AXIS if wanted.selection.axis is None else wanted.selection.axis
    check_size(path, [size for number, size in enumerate(spatial) if number != axis], MOST_DEEP)
    index = spatial[axis] // 2 if wanted.selection.index is None else wanted.selection.index
    place: list[slice | int] = [slice(None)] * len(spatial)
    place[axis] = chosen(path, "slice", index, spatial[axis])
    frame = chosen(path, "frame", wanted.selection.frame, times)
    return (*place, frame)[: len(shape)]


def _window(header: Any, wanted: Wanted, path: Path) -> tuple[float, float]:
    if wanted.shown is not None:
        return wanted.shown
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if not (np.isfinite([low, high]).all() and low < high):
        raise ImageError(f"{path}: has no range of values to show (cal_min, cal_max); give --window CENTRE,WIDTH")
    return (low + high) / 2, high - low
