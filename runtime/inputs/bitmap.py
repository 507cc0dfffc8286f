"""Pictures as Pillow decodes them: those of FORMATS; of TIFF those of 8 bits, and of 12 or 16 bits of gray."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.depth import in_range
from kcompiler.runtime.inputs.files import LARGEST, check_picture, check_size, chosen
from kcompiler.runtime.inputs.selection import Wanted, planes_of

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Those that pictures come in; Pillow knows others, some of which start programs."""
SCAN = b"\xff\xda"
"""What a scan of a JPEG begins with. A progressive one can have a thousand, each of which goes over the whole picture."""
MOST_SCANNED = 12 * LARGEST
"""Most pixels of all scans of a JPEG."""
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
DEEP_MODES = {"I": 4, "F": 4}
"""Bytes a sample, by the first letter of Pillow's modes; of others 1."""
DEEP_RAW_MODES = frozenset(
    f"{mode};16{order}" for mode in ("RGB", "RGBA", "RGBa", "RGBX", "LA", "L") for order in ("B", "L", "N", "")
)


def read_bitmap(path: Path, wanted: Wanted) -> list[AnyArray]:
    """Decodes a picture into planes [H, W] from 0 to 255, bytes or float32: one if gray, three (RGB) if colour."""
    wanted.check_flat(path)
    picture = decoded(path, wanted.selection.frame)
    if picture.mode in SIXTEEN_BITS or (picture.mode == "I" and picture.format == "PPM"):
        samples: AnyArray = np.asarray(picture).astype(np.uint16)
        declared = 16 if picture.format == "PPM" else None  # Pillow scales what is below the maximum that the file declares
        return planes_of(in_range(samples, wanted, declared, path))
    wanted.check_without_window(path)
    return planes_of(np.asarray(plain(picture, path)))


def decoded(path: Path, frame: int | None) -> Image.Image:
    """The picture of a file, upright.

    Raises:
        ImageError: unreadable, several frames, or a depth that Pillow would cut to 8 bits.
    """
    unreadable = foreign(lambda why: ImageError(f"{path}: not a readable picture ({why})"))
    # From a stream, because Pillow maps files into memory, and then misreads rotated TIFFs.
    with unreadable, path.open("rb") as stream, _opened(path, stream) as opened:
        number = chosen(path, "frame", frame, getattr(opened, "n_frames", 1))
        if number:
            opened.seek(number)
        if opened.mode not in SIXTEEN_BITS and (_raw_modes(opened) & DEEP_RAW_MODES or _deep_netpbm(path, opened)):
            raise ImageError(
                f"{path}: 16 bits a channel, which would be cut to 8; convert it to TIFF, to 8 bits, or to 16-bit gray "
                "without alpha"
            )
        check_picture(path, (opened.height, opened.width), len(opened.getbands()), DEEP_MODES.get(opened.mode[0], 1))
        if opened.format in ("JPEG", "MPO"):
            check_scans(path, path.read_bytes(), (opened.height, opened.width))
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        upright.format = opened.format
        return upright


def _opened(path: Path, stream: IO[bytes]) -> Image.Image:
    """A picture whose header is read."""
    Image.init()
    try:
        return Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not a readable picture (expected {', '.join(FORMATS)}, DICOM, NIfTI or an array)") from error


def check_scans(path: Path, content: bytes, size: tuple[int, int]) -> None:
    """Raises an :class:`ImageError` if the scans of a JPEG of (height, width) go over too many pixels."""
    check_size(path, (*size, max(content.count(SCAN), 1)), MOST_SCANNED, "pixels in scans")


def encoded_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) of a picture inside another file; None if it is no JPEG or JPEG 2000."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "JPEG2000")) as opened:
            return opened.height, opened.width
    except UnidentifiedImageError:
        return None


def plain(picture: Image.Image, path: Path) -> Image.Image:
    """A picture of 8 bits as gray or RGB.

    Raises:
        ImageError: transparent, or of a mode that has no clear meaning.
    """
    if picture.mode == "P":
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in ("L", "RGB") and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("LA", "RGBA", "PA"):
        *_, alpha = picture.split()
        if alpha.getextrema()[0] != 255:
            raise ImageError(f"{path}: has transparent pixels; flatten it onto a background first")
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    if picture.mode == "RGB":
        return picture
    raise ImageError(f"{path}: picture mode {picture.mode} is not supported; convert it to 8-bit gray or RGB, or 16-bit gray")


def _raw_modes(opened: Image.Image) -> frozenset[str]:
    """The decoder's names for the file's sample layout."""
    modes = set()
    for tile in getattr(opened, "tile", []):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        modes |= {argument for argument in arguments if isinstance(argument, str)}
    return frozenset(modes)


def _deep_netpbm(path: Path, opened: Image.Image) -> bool:
    """Whether a PPM file has a maximum above 255, so that Pillow scales it down (header: magic, width, height, maximum)."""
    if opened.format != "PPM" or opened.mode not in ("RGB", "L"):
        return False
    with path.open("rb") as stream:
        header = re.sub(rb"#[^\n]*", b"", stream.read(4096)).split()
    return header[0] in (b"P2", b"P3", b"P5", b"P6") and int(header[3]) > 255
