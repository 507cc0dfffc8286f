"""Preprocessing inside a map model: from a picture of any size to the model's image, as the Python driver does it.

A picture is resized by two matrix products, along x and then along y, as Pillow does. Their weights follow from the picture's
size, which is known at run time. Coordinates are fractions of integers, so that they are exact for any size and need no float64,
which builds for browsers lack. Source of the filters, and of the order of rounding: Pillow's Resample.c and Geometry.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from kcompiler.passes.deployment.builder import Builder
from kcompiler.runtime.deployed import COLOUR, PICTURE, SEEN
from kcompiler.runtime.inputs.elements import Element
from kcompiler.runtime.inputs.preprocessing import Preprocessing

BICUBIC = -0.5
"""Parameter of the cubic filter."""


@dataclass(frozen=True, slots=True)
class _Side:
    """What the model sees of an axis of the picture. Fractions of pixels are int64 numerators over 2 * ``parts``.

    Attributes:
        pixels: of the picture, int64 [].
        start, stop: numerators of the bounds of the box that is resized, int64 [].
        extent: of the box per pixel of the image, over ``parts`` alone, int64 [].
        parts: of a pixel of the picture.
    """

    pixels: str
    start: str
    stop: str
    extent: str
    parts: int


def image_of(outer: Builder, recipe: Preprocessing, element: Element) -> str:
    """Emits the model's image, float32 [1, C, H, W], from the picture, uint8 [height, width, C]; and the box that it shows."""
    sides = _sides(outer, recipe)
    bounds = [(side, side.start) for side in sides] + [(side, side.stop) for side in sides]
    outer("Concat", *(outer.row(_in_pixels(outer, *bound)) for bound in bounds), axis=0, name=SEEN)
    planes = outer("Transpose", outer("Cast", PICTURE, to=TensorProto.FLOAT), perm=[2, 0, 1])
    if recipe.channel_order == "BGR":
        planes = outer("Gather", planes, outer.constant([2, 1, 0]))
    height, width = recipe.size
    if recipe.interpolation == "nearest":
        for axis, size in ((1, height), (2, width)):
            planes = outer("Gather", planes, _nearest(outer, sides[axis - 1], size), axis=axis)
    else:
        filtered = FILTERS[recipe.interpolation]
        along_y, along_x = (_weights(outer, side, size, filtered) for side, size in zip(sides, recipe.size, strict=True))
        planes = outer("MatMul", along_y, outer("MatMul", planes, outer("Transpose", along_x, perm=[1, 0])))
    return outer("Unsqueeze", _in_units(outer, planes, recipe, element, [-1, 1, 1]), outer.constant([0]))


def model_fill(outer: Builder, recipe: Preprocessing, element: Element) -> str:
    """Emits the fill in the model's units, [C], from pixel values in the picture's order of channels."""
    fill = outer("Gather", COLOUR, outer.constant([2, 1, 0])) if recipe.channel_order == "BGR" else COLOUR
    return _in_units(outer, fill, recipe, element, [-1])


def _in_units(outer: Builder, pixels: str, recipe: Preprocessing, element: Element, shape: list[int]) -> str:
    """Pixel values, from 0 to 255, in the model's units, rounded to what its element type holds."""
    mean, std = (outer.constant(np.array(values, np.float32).reshape(shape)) for values in (recipe.mean, recipe.std))
    values = outer("Div", outer("Sub", outer("Mul", pixels, outer.number(recipe.scale)), mean), std)
    if element.whole:
        return outer("Clip", outer("Round", values), *(outer.number(bound) for bound in element.bounds))
    narrow = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}.get(element.name)
    return values if narrow is None else outer("Cast", outer("Cast", values, to=narrow), to=TensorProto.FLOAT)


def _sides(outer: Builder, recipe: Preprocessing) -> tuple[_Side, _Side]:
    """The box that is resized to the model's image, along y and x."""
    pixels = [outer("Gather", outer("Shape", PICTURE), outer.constant(axis)) for axis in (0, 1)]
    if recipe.resize == "stretch":
        whole = zip(pixels, recipe.size, strict=True)
        y, x = (_Side(n, outer.constant(0), outer("Mul", n, outer.constant(2 * size)), n, size) for n, size in whole)
        return y, x
    assert recipe.shorter_side is not None
    shorter = outer("Min", *pixels)
    y, x = (_centred(outer, count, shorter, recipe.shorter_side, size) for count, size in zip(pixels, recipe.size, strict=True))
    return y, x


def _centred(outer: Builder, pixels: str, shorter: str, parts: int, size: int) -> _Side:
    """``size`` times ``shorter`` / ``parts`` pixels around the centre of an axis."""
    centre, extent = outer("Mul", pixels, outer.constant(parts)), outer("Mul", shorter, outer.constant(size))
    return _Side(pixels, outer("Sub", centre, extent), outer("Add", centre, extent), shorter, parts)


def _in_pixels(outer: Builder, side: _Side, numerator: str) -> str:
    return outer("Div", outer("Cast", numerator, to=TensorProto.FLOAT), outer.number(2 * side.parts))


def _weights(outer: Builder, side: _Side, size: int, filtered: Callable[[Builder, str], str]) -> str:
    """What each pixel of the image has of each pixel of the picture along an axis, float32 [size, pixels]."""
    odd = outer.constant(2 * np.arange(size)[:, None] + 1)
    centres = outer("Add", side.start, outer("Mul", odd, side.extent))
    inputs = outer("Range", outer.constant(0), side.pixels, outer.constant(1))
    places = outer("Add", outer("Mul", inputs, outer.constant(2 * side.parts)), outer.constant(side.parts))
    # Where pixels are merged, the filter is as wide as all of them: antialiasing.
    width = outer("Max", side.extent, outer.constant(side.parts))
    distance, widths = (outer("Cast", value, to=TensorProto.FLOAT) for value in (outer("Sub", places, centres), width))
    weights = filtered(outer, outer("Abs", outer("Div", distance, outer("Mul", widths, outer.number(2)))))
    return outer("Div", weights, outer("ReduceSum", weights, outer.constant([1]), keepdims=1))


def _nearest(outer: Builder, side: _Side, size: int) -> str:
    """The pixel of the picture under the centre of each pixel of the image, int64 [size].

    Pillow steps from each to the next in float64, from a box in float32: where a centre falls on a border, the sums decide.
    """
    bounds = [outer("Cast", bound, to=TensorProto.DOUBLE) for bound in (side.start, side.stop)]
    half_pixels = outer.constant(np.array(2.0 * side.parts))
    start, stop = (outer("Cast", outer("Div", bound, half_pixels), to=TensorProto.FLOAT) for bound in bounds)
    step = outer("Div", outer("Cast", outer("Sub", stop, start), to=TensorProto.DOUBLE), outer.constant(np.array(float(size))))
    first = outer("Add", outer("Cast", start, to=TensorProto.DOUBLE), outer("Mul", step, outer.constant(np.array(0.5))))
    steps = outer("Expand", outer.row(step), outer.constant([size - 1]))
    centres = outer("CumSum", outer("Concat", outer.row(first), steps, axis=0), outer.constant(0))
    return outer("Cast", outer("Floor", centres), to=TensorProto.INT64)


def _bilinear(outer: Builder, distance: str) -> str:
    return outer("Max", outer("Sub", outer.number(1), distance), outer.number(0))


def _polynomial(outer: Builder, x: str, *coefficients: float) -> str:
    """By Horner's rule; the highest power's coefficient is the first."""
    value = outer.number(coefficients[0])
    for coefficient in coefficients[1:]:
        value = outer("Add", outer("Mul", value, x), outer.number(coefficient))
    return value


def _bicubic(outer: Builder, distance: str) -> str:
    near = _polynomial(outer, distance, BICUBIC + 2, -(BICUBIC + 3), 0, 1)
    far = _polynomial(outer, distance, BICUBIC, -5 * BICUBIC, 8 * BICUBIC, -4 * BICUBIC)
    beyond = outer("Where", outer("Less", distance, outer.number(2)), far, outer.number(0))
    return outer("Where", outer("Less", distance, outer.number(1)), near, beyond)


def _sinc(outer: Builder, x: str) -> str:
    """sin(pi x) / (pi x)."""
    angle = outer("Mul", outer("Max", x, outer.number(1e-6)), outer.number(np.pi))
    return outer("Div", outer("Sin", angle), angle)


def _lanczos(outer: Builder, distance: str) -> str:
    window = _sinc(outer, outer("Div", distance, outer.number(3)))
    product = outer("Mul", _sinc(outer, distance), window)
    return outer("Where", outer("Less", distance, outer.number(3)), product, outer.number(0))


FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}
"""By name: from distances in widths of the filter, float32, to weights."""
