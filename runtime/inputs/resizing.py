"""Resizing by a recipe: where the model's pixels lie in a picture, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kcompiler.runtime.arrays import AnyArray, FloatArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.inputs.files import LARGEST
from kcompiler.runtime.inputs.recipe import Preprocessing
from kcompiler.runtime.inputs.view import View


@dataclass(frozen=True, slots=True)
class Whole:
    """A picture scaled to whole pixels, along an axis.

    Attributes:
        extent: pixels of the scaled picture.
        start: the one that is the model's first; negative where the model's image begins with padding.
    """

    extent: int
    start: int


@dataclass(frozen=True, slots=True)
class Axis:
    """How a picture is resized along an axis.

    Attributes:
        pixels: of the picture.
        size: of the model's image.
        scale: pixels of the picture per pixel of the model's image.
        offset: of the model's first pixel, in the picture.
        whole: the scaled picture; None where it has a fraction of a pixel, which a crop cuts off.
    """

    pixels: int
    size: int
    scale: float
    offset: float
    whole: Whole | None

    @classmethod
    def of(cls, pixels: int, size: int, whole: Whole) -> Axis:
        scale = pixels / whole.extent
        return cls(pixels, size, scale, whole.start * scale, whole)

    @property
    def kept(self) -> tuple[int, int]:
        """The model's pixels that are not padding, half-open."""
        if self.whole is None:
            return 0, self.size
        return max(-self.whole.start, 0), min(self.size, self.whole.extent - self.whole.start)


def axes_of(picture: tuple[int, int], recipe: Preprocessing) -> tuple[Axis, Axis]:
    """How a picture of (height, width) is resized along y and x."""
    if recipe.resize == "crop":
        y, x = (_cropped(pixels, min(picture), size, recipe) for pixels, size in zip(picture, recipe.size, strict=True))
        return y, x
    extents = (recipe.resized or recipe.size) if recipe.resize == "stretch" else _fitted(picture, recipe.size)
    y, x = (
        Axis.of(pixels, size, Whole(extent, start_of(extent - size, recipe)))
        for pixels, size, extent in zip(picture, recipe.size, extents, strict=True)
    )
    return y, x


def _cropped(pixels: int, shorter: int, size: int, recipe: Preprocessing) -> Axis:
    """Of a picture whose shorter side is scaled to ``recipe.shorter``."""
    if recipe.crop_at == "fraction" and pixels * recipe.shorter >= size * shorter:
        factor = shorter / recipe.shorter
        return Axis(pixels, size, factor, (pixels - size * factor) / 2, None)
    extent = pixels * recipe.shorter // shorter
    return Axis.of(pixels, size, Whole(extent, start_of(extent - size, recipe)))


def _fitted(picture: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture scaled so that it just fits ``size``; the side that does not decide is rounded, half up."""
    height, width = picture
    if size[0] * width <= size[1] * height:
        return size[0], max((2 * width * size[0] + height) // (2 * height), 1)
    return max((2 * height * size[1] + width) // (2 * width), 1), size[1]


def start_of(left_over: int, recipe: Preprocessing) -> int:
    """Where the model's image begins in a scaled picture that is larger by ``left_over``, or smaller if that is negative."""
    if recipe.anchor == "top-left":
        return 0
    if left_over < 0:
        return left_over // 2 if recipe.crop_at == "floor" else -(-left_over // 2)
    return round(left_over / 2) if recipe.crop_at == "round" else left_over // 2


def view_of(picture: tuple[int, int], recipe: Preprocessing) -> View:
    """Where the model's pixels lie in a picture of (height, width) that ``recipe`` resizes."""
    y, x = axes_of(picture, recipe)
    return View(picture, recipe.size, (y.scale, x.scale), (y.offset, x.offset))


def resized(planes: Sequence[AnyArray], recipe: Preprocessing, name: str = "picture") -> FloatArray:
    """Channels [H, W], bytes or float32, resized to the recipe's size, float32 [H, W, C]; ``name`` is for messages.

    Raises:
        ImageError: the scaled picture, of which a part would be kept, is too large.
    """
    y, x = axes_of(planes[0].shape, recipe)
    height, width = (axis.whole.extent if y.whole and x.whole and axis.whole else axis.size for axis in (y, x))
    for rows in (height, y.pixels):  # along x first, see _scaled
        if rows * width > LARGEST:
            raise ImageError(
                f"{name}: {y.pixels} x {x.pixels} pixels would be scaled to {rows} x {width}, at most {LARGEST}; crop it first"
            )
    result = np.empty((y.size, x.size, len(planes)), np.float32)
    result[...] = recipe.padding()
    (top, bottom), (left, right) = y.kept, x.kept
    for channel, plane in enumerate(planes):
        result[top:bottom, left:right, channel] = _resize(plane, y, x, recipe)
    return result


def _resize(plane: AnyArray, y: Axis, x: Axis, recipe: Preprocessing) -> FloatArray:
    """The part of the model's image that is not padding. Where pixels are not rounded, overshoot beyond 0..255 is kept."""
    if plane.dtype == np.uint8:
        image = Image.fromarray(plane if recipe.rounded else plane.astype(np.float32))
    else:
        image = Image.fromarray(np.clip(np.rint(plane), 0, 255).astype(np.uint8) if recipe.rounded else plane)
    (top, bottom), (left, right) = y.kept, x.kept
    if y.whole and x.whole:
        scaled = np.asarray(_scaled(image, (x.whole.extent, y.whole.extent), recipe), dtype=np.float32)
        rows, columns = y.whole.start, x.whole.start
        return scaled[top + rows : bottom + rows, left + columns : right + columns]
    (first_row, last_row), (first_column, last_column) = _span(y), _span(x)
    box = (first_column, first_row, last_column, last_row)
    return np.asarray(_scaled(image, (right - left, bottom - top), recipe, box), dtype=np.float32)


def _scaled(
    image: Image.Image, size: tuple[int, int], recipe: Preprocessing, box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Resized to (width, height): along x, and then along y.

    In two calls, because Pillow 13 takes the axis first that makes less work, and 8-bit pixels depend on the order.
    """
    resample = Image.Resampling[recipe.interpolation.upper()]
    left, top, right, bottom = box or (0, 0, *image.size)
    narrowed = image.resize((size[0], image.height), resample, box=(left, 0, right, image.height))
    return narrowed.resize(size, resample, box=(0, top, size[0], bottom))


def _span(axis: Axis) -> tuple[float, float]:
    """What the model sees of the picture; clipped to it, which rounding may exceed."""
    last = axis.offset + axis.scale * axis.size
    return max(axis.offset, 0.0), min(last, float(axis.pixels))
