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
from kcompiler.runtime.inputs.files import MOST_DEEP, check_picture, check_size, chosen
from kcompiler.runtime.inputs.selection import Wanted, planes_of
from kcompiler.runtime.inputs.unpacking import Unpacker, unpacks_beyond
from kcompiler.runtime.inputs.windows import WHITE

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
"""Photometric interpretations."""
ALPHA = (1, 2)
"""Kinds of extra samples: associated and unassociated alpha."""
UNPACKERS: Mapping[int, Callable[[], Unpacker]] = {8: zlib.decompressobj, 32946: zlib.decompressobj, 34925: lzma.LZMADecompressor}
"""By compression: those that unpack to whatever the data holds."""
PROBED = 8
"""The largest parts, and as many of the others, that are unpacked to see what they hold."""
SLACK = 1 << 16
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
    """Checks that a page's parts are no larger than they may be, some of them by unpacking them.

    Raises:
        ImageError: a part is as large as a whole picture may be, takes more bytes than without compression, or unpacks to more.
    """
    rows, width, depth = page.rowsperstrip, page.imagewidth, 1
    if page.is_tiled:
        rows, width, depth = page.tilelength, page.tilewidth, page.tiledepth
        check_size(path, (rows, width, depth, page.samplesperpixel), MOST_DEEP, "samples a tile")
    check_size(path, (page.imagelength, page.imagewidth, page.imagedepth, page.samplesperpixel), MOST_DEEP, "samples")
    start = UNPACKERS.get(int(page.compression))
    if start is None:
        return
    part = min(rows, page.imagelength if not page.is_tiled else rows) * width * depth * page.samplesperpixel
    most = 2 * part * ((page.bitspersample + 7) // 8) + SLACK
    counts = page.databytecounts
    largest = sorted(range(len(counts)), key=lambda number: -counts[number])[:PROBED]
    probed = {*largest, *range(0, len(counts), max(len(counts) // PROBED, 1))}
    offsets, sizes = ([values[number] for number in sorted(probed)] for values in (page.dataoffsets, counts))
    if max(counts, default=0) > most or any(
        unpacks_beyond([data], most, start) for data, _ in page.parent.filehandle.read_segments(offsets, sizes) if data
    ):
        raise ImageError(f"{path}: has parts that unpack to more than {most} bytes, twice what the header says")


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
