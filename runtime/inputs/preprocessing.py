"""Preprocessing: from a picture file to the model's input, by the recipe in the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kcompiler.runtime.arrays import AnyArray, ByteArray, FloatArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.inputs.formats import format_of
from kcompiler.runtime.inputs.recipe import Preprocessing
from kcompiler.runtime.inputs.resizing import resized, view_of
from kcompiler.runtime.inputs.selection import EVERYTHING, Selection, Wanted
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.inputs.windows import WHITE

__all__ = ["LUMA", "Picture", "Preprocessing", "preprocessed", "read_picture", "view_of"]

LUMA = (19595, 38470, 7471)
"""Of red, green and blue, by ITU-R 601, over 65536."""
ROWS = 512
"""Rows that are computed with at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A preprocessed picture.

    Attributes:
        pixels: uint8 [H, W, 3], RGB, resized and cropped: what the model sees.
        tensor: float32 [1, C, H, W], the model's input, in model units.
        source: uint8 [height, width, 3], RGB, the whole picture at its own size, upright.
        view: where ``pixels`` lie in ``source``.
    """

    pixels: ByteArray
    tensor: FloatArray
    source: ByteArray
    view: View


def read_picture(path: Path, recipe: Preprocessing, selection: Selection = EVERYTHING) -> Picture:
    """Reads a picture file and preprocesses it.

    Gray pictures become three equal channels where the model takes colour; EXIF rotation is applied; opaque alpha is dropped.

    Raises:
        ImageError: unreadable; transparent; channels that the model does not take; several frames, none of them chosen; values
            whose range is not known; a meaning that is not clear.
    """
    wanted = Wanted(selection, recipe.channels, recipe.bits, recipe.window)
    try:
        decoded = format_of(path).read(path, wanted)
        planes = _inverted(_channels(decoded, recipe, path), recipe)
        pixels = resized(planes, recipe, str(path))
        height, width = planes[0].shape
        return Picture(_shown(pixels), _input_of(pixels, recipe), _source(planes), view_of((height, width), recipe))
    except MemoryError as error:
        raise ImageError(f"{path}: does not fit in the memory that is left; make it smaller first") from error


def preprocessed(pixels: ByteArray, recipe: Preprocessing) -> FloatArray:
    """The model's input [1, C, H, W] of a picture, uint8 [height, width, C]: RGB, or gray where the model takes gray."""
    planes: list[AnyArray] = list(np.moveaxis(pixels, -1, 0))
    planes = [_gray(planes)] if recipe.gray and len(planes) == 3 else planes
    return _input_of(resized(_inverted(planes, recipe), recipe), recipe)


def _channels(planes: list[AnyArray], recipe: Preprocessing, path: Path) -> list[AnyArray]:
    """As many planes as the model takes."""
    if recipe.channels == 1 and len(planes) == 3:
        if recipe.gray:
            return [_gray(planes)]
        if not all(np.array_equal(planes[0], plane) for plane in planes[1:]):
            raise ImageError(
                f'{path}: a colour picture, but the model takes gray; convert it to gray first, or say "gray": true in the recipe'
            )
        return planes[:1]
    if recipe.channels == 3 and len(planes) == 1 and recipe.channel_order != "stored":
        return planes * 3
    if len(planes) != recipe.channels:
        raise ImageError(f"{path}: has {len(planes)} channels, the model takes {recipe.channels}")
    return planes


def _gray(planes: list[AnyArray]) -> FloatArray:
    """Luma by ITU-R 601, whole numbers, as Pillow converts RGB to L."""
    gray = np.empty(planes[0].shape, np.float32)
    for start in range(0, len(gray), ROWS):  # a part at a time: double precision takes much memory
        red, green, blue = (np.asarray(plane[start : start + ROWS], dtype=np.float64) for plane in planes)
        weighted = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        gray[start : start + ROWS] = np.floor((weighted + 32768) / 65536)
    return gray


def _inverted(planes: list[AnyArray], recipe: Preprocessing) -> list[AnyArray]:
    """Planes of 0 to 255 turned around: bytes stay bytes."""
    return [plane.dtype.type(WHITE) - plane for plane in planes] if recipe.invert else planes


def _source(planes: list[AnyArray]) -> ByteArray:
    """The whole picture, uint8 [height, width, 3]."""
    if len(planes) not in (1, 3):
        return _shown(np.stack(planes, axis=-1))
    source = np.empty((*planes[0].shape, 3), np.uint8)
    for channel, plane in enumerate(planes):
        shown = plane if plane.dtype == np.uint8 else np.clip(np.rint(plane), 0, 255)
        source[..., channel if len(planes) == 3 else slice(None)] = shown if len(planes) == 3 else shown[..., None]
    return source


def _shown(pixels: FloatArray) -> ByteArray:
    """Pixels [H, W, C] of 0 to 255 as a picture, uint8 [H, W, 3]; of other than 1 or 3 channels their mean."""
    colours = pixels if pixels.shape[2] in (1, 3) else pixels.mean(axis=2, keepdims=True, dtype=np.float32)
    shown: ByteArray = np.clip(np.rint(np.broadcast_to(colours, (*pixels.shape[:2], 3))), 0, 255).astype(np.uint8)
    return shown


def _input_of(resized: FloatArray, recipe: Preprocessing) -> FloatArray:
    """The model's input [1, C, H, W] of pixels [H, W, C]."""
    ordered = resized[..., ::-1] if recipe.channel_order == "BGR" else resized
    return recipe.to_input(ordered[None])
