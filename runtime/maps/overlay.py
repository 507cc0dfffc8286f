"""Drawing a heat map over its picture: what each pixel shows, without the words around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kcompiler.runtime.arrays import BoolArray, ByteArray, FloatArray, IntArray
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.maps.surface import over_picture

LARGEST, SMALLEST = 4096, 480
"""The longer side of a drawn picture, in pixels: larger ones are scaled down, smaller ones enlarged by a whole number."""
DIMMED = 0.45
"""What is left of the brightness where the model did not see the picture."""
ROWS = 256
"""Rows that are coloured at once, so that large pictures take little memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What is drawn over a picture.

    Attributes:
        drop: float32 [rows, cols], with the patch at (ys[row], xs[col]); not finite where there is nothing to draw.
        ys, xs: corners of the patches, in the model's pixels.
        patch: (height, width) in the model's pixels.
        view: where the model's pixels lie in the picture.
        crossed: bool [rows, cols], positions to mark.
        rounding: range of ``drop`` that rounding alone may make; a map within it has no colour.
    """

    drop: FloatArray
    ys: IntArray
    xs: IntArray
    patch: tuple[int, int]
    view: View
    crossed: BoolArray
    rounding: float = 0.0

    @property
    def extent(self) -> float:
        """Largest difference of two finite drops, or of one from 0."""
        finite = np.append(self.drop[np.isfinite(self.drop)], np.float32(0)).astype(np.float64)
        return float(np.ptp(finite))

    @property
    def flat(self) -> bool:
        """Whether the map is rounding alone."""
        return self.extent <= self.rounding

    def limits(self, style: Style) -> tuple[float, float]:
        """The drops at the ends of the colour bar."""
        if style.range is not None:
            return style.range
        if self.flat:
            return -(self.rounding or 1.0), self.rounding or 1.0
        largest = float(np.abs(self.drop[np.isfinite(self.drop)]).max())
        return -largest, largest

    def surface(self, size: tuple[int, int]) -> FloatArray:
        """The drop over a picture drawn at ``size``; NaN where no patch reached."""
        return over_picture(self.drop, self.ys, self.xs, self.patch, self.view, size)


def drawn_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) at which a picture of that size is drawn."""
    longer = max(height, width)
    if longer > LARGEST:
        return max(round(height * LARGEST / longer), 1), max(round(width * LARGEST / longer), 1)
    factor = -(-SMALLEST // longer)
    return height * factor, width * factor


def check_picture(picture: ByteArray, view: View) -> None:
    """Checks that a picture is the one that ``view`` is of.

    Raises:
        UsageError: another size, or no gray or RGB picture of bytes.
    """
    if picture.dtype != np.uint8 or picture.shape not in (view.picture, (*view.picture, 3)):
        raise UsageError(
            f"picture is {picture.dtype} {list(picture.shape)}, expected uint8 of the map's size {list(view.picture)}, gray or "
            "RGB; one of another size goes with its view"
        )


def painted(picture: ByteArray, layer: Layer, surface: FloatArray, style: Style) -> ByteArray:
    """The picture in gray with the colours of ``surface`` over it, uint8 [h, w, 3] of the surface's size.

    The stronger the drop, the more opaque; what the model did not see is dimmed.
    """
    import matplotlib as mpl

    height, width = surface.shape
    shades = (mpl.colormaps[style.colours](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.float32)
    gray = scaled(_gray(picture), (height, width)).astype(np.float32)
    _dim_unseen(gray, layer.view)
    low, high = layer.limits(style)
    strongest = max(-low, high)
    result = np.empty((height, width, 3), np.uint8)
    for start in range(0, height, ROWS):
        part = slice(start, start + ROWS)
        share = np.zeros_like(surface[part]) if layer.flat else np.nan_to_num(np.clip(surface[part], low, high) / strongest)
        opacity = (np.abs(share) * style.opacity)[..., None]
        colours = shades[np.rint((share + 1) * 127.5).astype(np.uint8)]
        result[part] = np.rint(gray[part, :, None] * (1 - opacity) + colours * opacity)
    return result


def scaled(picture: ByteArray, size: tuple[int, int]) -> ByteArray:
    """A picture at another size: larger ones in squares, smaller ones averaged."""
    if picture.shape[:2] == size:
        return picture
    enlarged = size[0] >= picture.shape[0]
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), method))


def _gray(picture: ByteArray) -> ByteArray:
    """Brightness [H, W]: a picture's own colours are not to be taken for the map's."""
    if picture.ndim == 2:
        return picture
    red, green, blue = np.moveaxis(picture.astype(np.float32), -1, 0) * np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
    brightness: FloatArray = red + green + blue
    return np.rint(brightness).astype(np.uint8)


def _dim_unseen(gray: FloatArray, view: View) -> None:
    seen = seen_box(view, gray.shape)
    keep = gray[seen[0] : seen[2], seen[1] : seen[3]].copy()
    gray *= DIMMED
    gray[seen[0] : seen[2], seen[1] : seen[3]] = keep


def seen_box(view: View, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """What the model sees, (top, left, bottom, right) in whole pixels of a picture drawn at ``size``."""
    top, left, bottom, right = view.seen
    y, x = size[0] / view.picture[0], size[1] / view.picture[1]
    return round(top * y), round(left * x), round(bottom * y), round(right * x)
