"""TIFF: by its photometric interpretation, its depth and its number of channels."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kcompiler.runtime.arrays import AnyArray, DoubleArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.bitmap import SIXTEEN_BITS, decoded, read_bitmap
from kcompiler.runtime.inputs.depth import in_range
from kcompiler.runtime.inputs.files import MOST_BYTES, MOST_DEEP, check_picture, check_size, chosen
from kcompiler.runtime.inputs.selection import Wanted, planes_of
from kcompiler.runtime.inputs.unpacking import RATIO, Unpacker, inflates_beyond
from kcompiler.runtime.inputs.windows import WHITE

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
"""Photometric interpretations."""
ALPHA = (1, 2)
"""Kinds of extra samples: associated and unassociated alpha."""
UNPACKERS: Mapping[int, tuple[Callable[[], Unpacker], int]] = {
    8: (zlib.decompressobj, RATIO),
    32946: (zlib.decompressobj, RATIO),
    34925: (lzma.LZMADecompressor, 1 << 13),
}
"""By compression: those that unpack to whatever the data holds, and how many bytes they can make of one."""
UPRIGHT = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1], 7: lambda a: a.swapaxes(0, 1)[::-1, ::-1], 8: lambda a: a.swapaxes(0, 1)[::-1],
}  # fmt: skip
"""By orientation: from rows and columns as stored to an upright picture."""


def read_tiff(path: Path, wanted: Wanted) -> list[AnyArray]:
    """Decodes a page into planes [H, W] from 0 to 255, bytes or float32.

    Pages of up to 8 bits in one sample a pixel, or of 8 bits of colour, are Pillow's; more channels than those are planes as they
    are, where the model takes that many.
    """
    wanted.check_flat(path)
    from tifffile import TiffFile

    with foreign(lambda why: ImageError(f"{path}: not a readable TIFF ({why})")), TiffFile(path) as opened:
        page: Any = opened.pages[chosen(path, "frame", wanted.selection.frame, len(opened.pages))]
        check_picture(path, (page.imagelength, page.imagewidth), page.samplesperpixel, (page.bitspersample + 7) // 8)
        if _is_plain(page):
            return read_bitmap(path, wanted)
        return planes_of(_pixels(page, wanted, path))


def _is_plain(page: Any) -> bool:
    """Whether Pillow reads the page as it is meant."""
    colours = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, YCBCR: 3}.get(page.photometric)
    alpha = len(page.extrasamples) == 1 and page.extrasamples[0] in ALPHA
    return page.bitspersample <= 8 and (colours is None or page.samplesperpixel == colours + alpha)


def _pixels(page: Any, wanted: Wanted, path: Path) -> DoubleArray:
    """Pixels of a page, [H, W, channels] from 0 to 255."""
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        raise ImageError(
            f"{path}: photometric interpretation {page.photometric.name} of {page.bitspersample} bits is not supported"
        )
    samples = _samples(page, wanted.selection.frame or 0, path)
    samples = _without_alpha(samples, page.extrasamples, path)
    if samples.shape[2] not in (1, 3, wanted.channels):
        raise ImageError(f"{path}: has {samples.shape[2]} channels, the model takes {wanted.channels}")
    shown = in_range(samples, wanted, _declared_bits(page), path).astype(np.float64, copy=False)
    return WHITE - shown if page.photometric == WHITE_IS_ZERO else shown


def _samples(page: Any, frame: int, path: Path) -> AnyArray:
    """Samples as stored, [H, W, S], upright. Unsigned gray is decoded by Pillow, which knows more compressions."""
    if page.samplesperpixel == 1 and page.bitspersample in (12, 16) and page.sampleformat == 1:
        picture = _by_pillow(path, frame)
        if picture is not None:
            return picture[..., None]
    _check_packed(page, path)
    array = page.asarray()
    channels_first = page.samplesperpixel > 1 and page.planarconfig == 2
    array = np.moveaxis(array, 0, -1) if channels_first else array
    laid_out = array.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    tag = page.tags.get("Orientation")
    return np.ascontiguousarray(UPRIGHT[int(tag.value) if tag is not None else 1](laid_out))


def _check_packed(page: Any, path: Path) -> None:
    """Raises an :class:`ImageError` if a page unpacks to more than any picture, or has tiles as large as that."""
    if page.is_tiled:
        check_size(path, (page.tilelength, page.tilewidth, page.tiledepth, page.samplesperpixel), MOST_DEEP, "samples a tile")
    check_size(path, (page.imagelength, page.imagewidth, page.imagedepth, page.samplesperpixel), MOST_DEEP, "samples")
    start, ratio = UNPACKERS.get(int(page.compression), (None, 0))
    if start is None or sum(page.databytecounts) * ratio <= MOST_BYTES:
        return
    segments = page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts, sort=True)
    if inflates_beyond((data for data, _ in segments if data), MOST_BYTES, start):
        raise ImageError(f"{path}: unpacks to more than {MOST_BYTES} bytes, its header says {page.nbytes}")


def _by_pillow(path: Path, frame: int) -> AnyArray | None:
    """Unsigned gray samples as stored, upright; None if Pillow does not know the layout."""
    try:
        picture = decoded(path, frame)
    except ImageError:
        return None
    return np.asarray(picture).astype(np.uint16) if picture.mode in SIXTEEN_BITS else None


def _without_alpha(samples: AnyArray, extra: tuple[int, ...], path: Path) -> AnyArray:
    if not extra or extra[-1] not in ALPHA:
        return samples
    opaque = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
    if (samples[..., -1] != opaque).any():
        raise ImageError(f"{path}: has transparent pixels; flatten it onto a background first")
    return samples[..., :-1]


def _declared_bits(page: Any) -> int | None:
    """The depth of samples in 16 bits: fewer bits a sample, or a largest value that is all ones.

    Other largest values are those that occur, which say nothing of the depth.
    """
    if page.bitspersample < 16:
        return int(page.bitspersample)
    tag = page.tags.get("MaxSampleValue")
    if tag is None:
        return None
    largest = int(np.max(tag.value))
    return largest.bit_length() if largest >= 255 and largest & (largest + 1) == 0 else None
