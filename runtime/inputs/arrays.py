"""Arrays of NumPy (.npy, .npz): preprocessed images, or pixels."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.depth import in_range
from kcompiler.runtime.inputs.files import MOST_BYTES, MOST_DEEP, check_file, check_picture, check_size, head
from kcompiler.runtime.inputs.selection import Wanted, planes_of

NPY = b"\x93NUMPY"


def load_array(path: Path) -> AnyArray:
    """The array of a .npy file, or the only one of a .npz file.

    Raises:
        ImageError: unreadable, of Python objects, too large, or several arrays.
    """
    check_file(path, "an array (.npy, .npz)")
    with foreign(lambda why: ImageError(f"{path}: not a readable array ({why})")), _opened(path) as stream:
        version = npy.read_magic(stream)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read_header is None:
            raise ImageError(f"{path}: is an array of format {version[0]}.{version[1]}, expected 1.0 or 2.0")
        shape, by_columns, dtype = read_header(stream)
        if dtype.kind not in "buifc":
            raise ImageError(f"{path}: is an array of {dtype}, expected numbers")
        check_size(path, shape, MOST_DEEP if dtype.itemsize > 1 else MOST_BYTES // 2, "numbers")
        count = int(np.prod(shape, dtype=np.int64))
        data = stream.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise ImageError(f"{path}: ends after {len(data)} of {count * dtype.itemsize} bytes of numbers")
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    return array.astype(dtype.newbyteorder("="))


@contextmanager
def _opened(path: Path) -> Iterator[IO[Any]]:
    """The .npy file, or the one inside the archive."""
    if head(path).startswith(NPY):
        with path.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            listed = ", ".join(name.removesuffix(".npy") for name in names[:8])
            raise ImageError(f"{path}: has {len(names)} arrays ({listed}), expected one; save the one to explain by itself")
        with archive.open(names[0]) as member:
            yield cast("IO[Any]", member)


def read_array(path: Path, wanted: Wanted) -> list[AnyArray]:
    """Pixels [H, W] or [H, W, channels] as planes from 0 to 255: unsigned integers, or any numbers with a window."""
    wanted.check_single(path)
    pixels = load_array(path)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, wanted.channels)):
        raise ImageError(
            f"{path}: has shape {list(pixels.shape)}, expected pixels [height, width] or [height, width, {wanted.channels}], or "
            "a preprocessed image in the type and shape that the model takes"
        )
    if pixels.dtype.kind not in "uif":
        raise ImageError(f"{path}: is an array of {pixels.dtype}, expected numbers")
    check_picture(path, (pixels.shape[0], pixels.shape[1]), pixels.size // (pixels.shape[0] * pixels.shape[1]), pixels.itemsize)
    return planes_of(in_range(pixels, wanted, None, path))
