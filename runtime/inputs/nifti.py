"""NIfTI: a slice of a volume, by a window to 0..255."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.files import LARGEST_PACKED, LARGEST_VOLUME, MOST_DEEP, check_file, check_size, chosen, head
from kcompiler.runtime.inputs.optional import optional
from kcompiler.runtime.inputs.selection import Selection, Wanted, planes_of
from kcompiler.runtime.inputs.unpacking import RATIO
from kcompiler.runtime.inputs.windows import window_wanted, windowed

DEFAULT_AXIS = 2
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class SliceAt:
    """Where a slice lies in a volume: ``index`` along ``axis``, of the time ``frame``, all from 0."""

    axis: int
    index: int
    frame: int


def read_nifti(path: Path, wanted: Wanted) -> list[AnyArray]:
    """A slice across ``axis`` (of the array as stored; the last by default), rows along the first axis that remains.

    Values are those of the header's scaling. They are shown by the caller's window or the recipe's, or from the header's cal_min
    to cal_max. Neither orientation nor the size of voxels is applied.
    """
    nibabel = optional("nibabel", path, "NIfTI")
    with foreign(lambda why: ImageError(f"{path}: not a readable NIfTI volume ({why})")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = nibabel.load(path)
        _check(volume, path)
        at, axes = slice_of(volume, wanted.selection, path), len(volume.shape)
        place = [at.index if axis == at.axis else slice(None) for axis in range(min(axes, 3))]
        plane = np.asarray(volume.dataobj[(*place, at.frame)[:axes]], dtype=np.float64)
    if not np.isfinite(plane).all():
        raise ImageError(f"{path}: has numbers that are not finite")
    return planes_of(windowed(plane, _window(volume.header, plane, wanted, path)))


def _check(volume: Any, path: Path) -> None:
    """Raises an :class:`ImageError` unless the volume is of numbers, and no larger than its file can hold."""
    shape, kind = tuple(volume.shape), volume.get_data_dtype()
    if kind.kind not in "uif" or not 2 <= len(shape) <= 4:
        raise ImageError(f"{path}: is an array {list(shape)} of {kind}, expected numbers of 2 to 4 axes")
    content = Path(volume.file_map["image"].filename)  # beside the header in a file of its own, in pairs
    check_file(content, "a volume")
    size = content.stat().st_size
    packed = head(content).startswith(GZIP)
    declared = min(LARGEST_PACKED, RATIO * size) if packed else min(LARGEST_VOLUME, size)
    check_size(path, (*shape, kind.itemsize), declared, "bytes")


def slice_of(volume: Any, selection: Selection, path: Path) -> SliceAt:
    """The slice of a volume that is the picture.

    Raises:
        ImageError: there is no such slice or frame, or it is too large.
    """
    spatial, times = (*volume.shape, 1)[:3], (*volume.shape, 1, 1)[3]
    axis = DEFAULT_AXIS if selection.axis is None else selection.axis
    check_size(path, [size for number, size in enumerate(spatial) if number != axis], MOST_DEEP)
    index = spatial[axis] // 2 if selection.index is None else selection.index
    return SliceAt(axis, chosen(path, "slice", index, spatial[axis]), chosen(path, "frame", selection.frame, times))


def _window(header: Any, plane: AnyArray, wanted: Wanted, path: Path) -> tuple[float, float]:
    if wanted.shown is not None:
        return wanted.shown
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if not (np.isfinite([low, high]).all() and low < high):
        raise ImageError(f"{path}: has no range of values to show (cal_min, cal_max); {window_wanted(plane)}")
    return (low + high) / 2, high - low
