"""The formats of files that pictures are read from, recognised by their first bytes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.inputs.arrays import read_array
from kcompiler.runtime.inputs.bitmap import read_bitmap
from kcompiler.runtime.inputs.dicom import read_dicom
from kcompiler.runtime.inputs.files import check_file, head
from kcompiler.runtime.inputs.nifti import read_nifti
from kcompiler.runtime.inputs.selection import Wanted
from kcompiler.runtime.inputs.tiff import read_tiff

ARRAY_BEGINNINGS = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DICOM_SUFFIXES = (".dcm", ".dicom")


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files.

    Attributes:
        name: of the format.
        recognises: whether a file with these first bytes, and this path, is of the format.
        read: decodes it into planes [H, W] from 0 to 255, bytes or float32: one if gray, three (RGB) if colour, or as many as the
            model takes.
    """

    name: str
    recognises: Callable[[bytes, Path], bool]
    read: Callable[[Path, Wanted], list[AnyArray]]


def _is_nifti(first: bytes, path: Path) -> bool:
    if first.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as stream:
                first = stream.read(352)
        except (OSError, EOFError, zlib.error):
            return False
    return first[344:348] in (b"n+1\0", b"ni1\0") or first[4:12] in (b"n+2\0\r\n\032\n", b"ni2\0\r\n\032\n")


def _is_dicom(first: bytes, path: Path) -> bool:
    return first[128:132] == b"DICM" or (path.suffix.lower() in DICOM_SUFFIXES and not first.startswith(TIFF_BEGINNINGS))


FORMATS = (
    Format("array", lambda first, _: first.startswith(ARRAY_BEGINNINGS), read_array),
    Format("DICOM", _is_dicom, read_dicom),
    Format("NIfTI", _is_nifti, read_nifti),
    Format("TIFF", lambda first, _: first.startswith(TIFF_BEGINNINGS), read_tiff),
    Format("picture", lambda *_: True, read_bitmap),
)
"""In the order in which they are tried."""


def format_of(path: Path) -> Format:
    """The format of a file.

    Raises:
        ImageError: it is no regular file.
    """
    check_file(path, "a picture")
    first = head(path)
    return next(known for known in FORMATS if known.recognises(first, path))


def is_array(path: Path) -> bool:
    """Whether a file is an array of NumPy's."""
    return format_of(path).name == "array"
