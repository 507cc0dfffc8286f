"""Files that are given to be read: regular ones, of a bounded size once they are decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from kcompiler.runtime.errors import ImageError, KCompilerError

LARGEST = 89_478_485
"""Most pixels of a picture: beyond it Pillow warns of a decompression bomb."""
LONGEST_SIDE = 1 << 17
"""Most pixels of a picture along an axis: resizing a longer one takes memory and time out of proportion."""
MOST_BYTES = 1 << 29
"""Most bytes of the samples of a picture, as its file has them."""
MOST_DEEP = 1 << 26
"""Most samples of a picture of more than 8 bits a sample, which are computed with in double precision."""
LARGEST_VOLUME = 1 << 33
"""Most bytes of an uncompressed volume, of which a slice is read."""
LARGEST_PACKED = 1 << 30
"""Most bytes of a volume in a compressed file, which has to be unpacked up to the slice."""
HEAD = 1 << 10
LARGEST_TEXT = 1 << 26


def check_file(path: Path, expected: str, error: type[KCompilerError] = ImageError) -> None:
    """Raises ``error`` unless ``path`` is a regular file: reading a pipe or a device might never end."""
    if not path.exists():
        raise error(f"{path}: no such file; expected {expected}")
    if not path.is_file():
        raise error(f"{path}: is a {'folder' if path.is_dir() else 'pipe or a device'}; expected {expected}")


def head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(HEAD)


def text_of(path: Path, expected: str, error: type[KCompilerError]) -> str:
    """The text of a file, UTF-8.

    Raises:
        error: it is no regular file, or too large to be what is expected.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    check_file(path, expected, error)
    if path.stat().st_size > LARGEST_TEXT:
        raise error(f"{path}: has {path.stat().st_size} bytes, which is too much for {expected}")
    return path.read_text(encoding="utf-8")


def check_size(path: Path, sizes: Sequence[int], largest: int = LARGEST, what: str = "pixels") -> None:
    """Raises an :class:`ImageError` if a picture of ``sizes`` is empty or too large to decode."""
    if any(size < 1 for size in sizes) or math.prod(sizes) > largest:
        in_all = " in all" if len(sizes) > 1 else ""
        raise ImageError(f"{path}: declares {' x '.join(map(str, sizes))} {what}, expected from 1 to {largest}{in_all}")


def check_picture(path: Path, size: tuple[int, int], channels: int, itemsize: int = 1) -> None:
    """Raises an :class:`ImageError` if a picture of (height, width) is empty, or beyond the budget of any file.

    Args:
        path: of the file.
        size: that it declares.
        channels: samples a pixel.
        itemsize: bytes a sample.
    """
    check_size(path, size)
    for side in size:
        check_size(path, (side,), LONGEST_SIDE, "pixels along an axis")
    if itemsize > 1:
        check_size(path, (*size, channels), MOST_DEEP, f"samples of {itemsize} bytes")
    check_size(path, (*size, channels, itemsize), MOST_BYTES, "bytes")


def chosen(path: Path, what: str, asked: int | None, count: int) -> int:
    """Which of ``count`` frames is read.

    Raises:
        ImageError: there are several, and none was asked for; or there is no such.
    """
    if asked is None and count != 1:
        raise ImageError(f"{path}: has {count} {what}s; choose the one to explain with --{what} 0 to {count - 1}")
    if asked is not None and asked >= count:
        raise ImageError(f"{path}: has {count} {what}{'' if count == 1 else 's'}, --{what} is {asked}, counted from 0")
    return asked or 0
