"""What a model sees along each axis of a picture whose size is known at run time, by a recipe: as :mod:`resizing` does it.

Coordinates are fractions of integers, so that they are exact for any size and need no float64, which builds for browsers lack.
"""

from __future__ import annotations

from dataclasses import dataclass

from kcompiler.passes.deployment.builder import Builder
from kcompiler.runtime.deployed import PICTURE
from kcompiler.runtime.inputs.preprocessing import Preprocessing
from kcompiler.runtime.inputs.resizing import start_of

SHIFT = 1 << 40
"""An even number above all coordinates: makes them positive, because ONNX rounds quotients towards zero."""


@dataclass(frozen=True, slots=True)
class Side:
    """What the model sees of an axis of the picture: int64 []. Fractions of pixels are numerators over 2 * ``parts``.

    Attributes:
        pixels: of the picture.
        start: numerator of the first edge of the model's image.
        extent: of the picture per pixel of the image, over ``parts`` alone.
        parts: of a pixel of the picture.
        size: pixels of the image.
        padded: whether some of these may lie outside of the picture.
        scaled: (pixels of the scaled picture, the one that is the image's first), where it has whole pixels and is not the image.
    """

    pixels: str
    start: str
    extent: str
    parts: str
    size: int
    padded: bool = False
    scaled: tuple[str, str] | None = None

    def stop(self, outer: Builder) -> str:
        """Numerator of the last edge."""
        return outer("Add", self.start, outer("Mul", self.extent, outer.constant(2 * self.size)))


def sides_of(outer: Builder, recipe: Preprocessing) -> tuple[Side, Side]:
    """Along y and x."""
    pixels = [outer("Gather", outer("Shape", PICTURE), outer.constant(axis)) for axis in (0, 1)]
    if recipe.resize == "crop":
        shorter = outer("Min", *pixels)
        y, x = (_cropped(outer, count, shorter, size, recipe) for count, size in zip(pixels, recipe.size, strict=True))
    elif recipe.resize == "letterbox":
        extents = _fitted(outer, pixels, recipe)
        y, x = (_scaled(outer, *axis, recipe) for axis in zip(pixels, recipe.size, extents, strict=True))
    else:
        whole = zip(pixels, recipe.size, recipe.resized or recipe.size, strict=True)
        y, x = (_stretched(outer, count, size, extent, recipe) for count, size, extent in whole)
    return y, x


def _stretched(outer: Builder, pixels: str, size: int, extent: int, recipe: Preprocessing) -> Side:
    if extent == size:
        return Side(pixels, outer.constant(0), pixels, outer.constant(size), size)
    first = start_of(extent - size, recipe)
    start = outer("Mul", pixels, outer.constant(2 * first))
    scaled = outer.constant(extent), outer.constant(first)
    return Side(pixels, start, pixels, scaled[0], size, padded=extent < size, scaled=scaled)


def _cropped(outer: Builder, pixels: str, shorter: str, size: int, recipe: Preprocessing) -> Side:
    """Of a picture whose shorter side is scaled to ``recipe.shorter``."""
    parts = outer.constant(recipe.shorter)
    whole = outer("Mul", pixels, parts)
    if recipe.crop_at == "fraction":
        extent = outer("Mul", shorter, outer.constant(size))
        centred = Side(pixels, outer("Sub", whole, extent), shorter, parts, size)
        if recipe.shorter >= max(recipe.size):
            return centred
        padded = _scaled(outer, pixels, size, outer("Div", whole, shorter), recipe)
        fits = outer("Not", outer("Less", whole, extent))
        start, extent, parts = (
            outer("Where", fits, getattr(centred, name), getattr(padded, name)) for name in ("start", "extent", "parts")
        )
        return Side(pixels, start, extent, parts, size, padded=True)
    return _scaled(outer, pixels, size, outer("Div", whole, shorter), recipe)


def _scaled(outer: Builder, pixels: str, size: int, extent: str, recipe: Preprocessing) -> Side:
    """Of a picture scaled to ``extent`` pixels."""
    first = _start(outer, outer("Sub", extent, outer.constant(size)), recipe)
    start = outer("Mul", outer("Mul", pixels, first), outer.constant(2))
    padded = recipe.resize == "letterbox" or recipe.shorter < max(recipe.size)
    return Side(pixels, start, pixels, extent, size, padded, (extent, first))


def _fitted(outer: Builder, pixels: list[str], recipe: Preprocessing) -> tuple[str, str]:
    """Pixels of a letterboxed picture along y and x."""
    sizes = [outer.constant(size) for size in recipe.size]
    by_height = outer("Not", outer("Less", outer("Mul", sizes[1], pixels[0]), outer("Mul", sizes[0], pixels[1])))
    extents = []
    for axis, condition in ((0, by_height), (1, outer("Not", by_height))):
        one, other = pixels[axis], pixels[1 - axis]
        doubled = outer("Mul", outer("Mul", one, sizes[1 - axis]), outer.constant(2))
        nearest = outer("Div", outer("Add", doubled, other), outer("Mul", other, outer.constant(2)))
        extents.append(outer("Where", condition, sizes[axis], outer("Max", nearest, outer.constant(1))))
    return extents[0], extents[1]


def _start(outer: Builder, left_over: str, recipe: Preprocessing) -> str:
    """As :func:`start_of`."""
    if recipe.anchor == "top-left":
        return outer.constant(0)
    two = outer.constant(2)

    def halved(number: str) -> str:
        """Without its fraction, downwards."""
        return outer("Sub", outer("Div", outer("Add", number, outer.constant(SHIFT)), two), outer.constant(SHIFT // 2))

    down = halved(left_over)
    if recipe.crop_at == "floor":
        return down
    up = halved(outer("Add", left_over, outer.constant(1)))
    if recipe.crop_at == "round":  # half to even: up where the half is odd and there is a remainder
        odd = outer("Sub", down, outer("Mul", halved(down), two))
        nearest = outer("Add", down, outer("Mul", odd, outer("Sub", up, down)))
    else:
        nearest = down
    return outer("Where", outer("Less", left_over, outer.constant(0)), up, nearest)
