"""Preprocessing inside a map model: from a picture of any size to the model's image, as the Python driver does it.

A picture is resized by two matrix products, along x and then along y, as Pillow does. Their weights follow from the picture's
size, which is known at run time. Coordinates are float64, as Pillow's: float32 resolves a thousandth of a pixel at 10,000 pixels.
Source of the filters, and of the order of rounding: Pillow's Resample.c and Geometry.c.
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
    """What the model sees of an axis of the picture, in float32 as Pillow takes it: scalars of the graph, float32 and int64."""

    start: str
    stop: str
    pixels: str


def image_of(outer: Builder, recipe: Preprocessing, element: Element) -> str:
    """Emits the model's image, float32 [1, C, H, W], from the picture, uint8 [height, width, C]; and the box that it shows."""
    sides = _sides(outer, recipe)
    starts, stops = ([outer.row(getattr(side, end)) for side in sides] for end in ("start", "stop"))
    outer("Concat", *starts, *stops, axis=0, name=SEEN)
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
    mean, std = (outer.constant(np.array(values).reshape(shape)) for values in (recipe.mean, recipe.std))
    scaled = outer("Mul", outer("Cast", pixels, to=TensorProto.DOUBLE), outer.constant(np.array(recipe.scale)))
    values = outer("Cast", outer("Div", outer("Sub", scaled, mean), std), to=TensorProto.FLOAT)
    if element.whole:
        return outer("Clip", outer("Round", values), *(outer.number(bound) for bound in element.bounds))
    narrow = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}.get(element.name)
    return values if narrow is None else outer("Cast", outer("Cast", values, to=narrow), to=TensorProto.FLOAT)


def _sides(outer: Builder, recipe: Preprocessing) -> tuple[_Side, _Side]:
    """The box that is resized to the model's image, along y and x."""
    pixels = [outer("Gather", outer("Shape", PICTURE), outer.constant(axis)) for axis in (0, 1)]
    if recipe.resize == "stretch":
        zero = outer.number(0)
        y, x = (_Side(zero, outer("Cast", count, to=TensorProto.FLOAT), count) for count in pixels)
        return y, x
    assert recipe.shorter_side is not None
    lengths = [outer("Cast", count, to=TensorProto.DOUBLE) for count in pixels]
    factor = outer("Div", outer("Min", *lengths), _double(outer, recipe.shorter_side))  # pixels of the file per pixel seen
    y, x = (_centred(outer, *side, factor, size) for *side, size in zip(pixels, lengths, recipe.size, strict=True))
    return y, x


def _centred(outer: Builder, pixels: str, length: str, factor: str, size: int) -> _Side:
    """``size`` times ``factor`` pixels around the centre of an axis."""
    extent = outer("Mul", _double(outer, size), factor)
    start = outer("Div", outer("Sub", length, extent), _double(outer, 2))
    bounds = outer("Max", start, _double(outer, 0)), outer("Min", outer("Add", start, extent), length)
    first, last = (outer("Cast", bound, to=TensorProto.FLOAT) for bound in bounds)
    return _Side(first, last, pixels)


def _double(outer: Builder, value: float) -> str:
    return outer.constant(np.array(value, np.float64))


def _scale(outer: Builder, side: _Side, size: int) -> tuple[str, str]:
    """Where the box starts, and its pixels per pixel of the image: float64."""
    extent = outer("Cast", outer("Sub", side.stop, side.start), to=TensorProto.DOUBLE)
    return outer("Cast", side.start, to=TensorProto.DOUBLE), outer("Div", extent, _double(outer, size))


def _weights(outer: Builder, side: _Side, size: int, filtered: Callable[[Builder, str], str]) -> str:
    """What each pixel of the image has of each pixel of the picture along an axis, float32 [size, pixels]."""
    start, scale = _scale(outer, side, size)
    outputs = outer.constant(np.arange(size)[:, None] + 0.5)
    centres = outer("Add", start, outer("Mul", outputs, scale))
    inputs = outer("Range", outer.constant(0), side.pixels, outer.constant(1))
    places = outer("Add", outer("Cast", inputs, to=TensorProto.DOUBLE), _double(outer, 0.5))
    wide = outer("Max", scale, _double(outer, 1))  # where pixels are merged, the filter is as wide as all of them: antialiasing
    distance = outer("Abs", outer("Div", outer("Sub", places, centres), wide))
    weights = filtered(outer, outer("Cast", distance, to=TensorProto.FLOAT))
    return outer("Div", weights, outer("ReduceSum", weights, outer.constant([1]), keepdims=1))


def _nearest(outer: Builder, side: _Side, size: int) -> str:
    """The pixel of the picture under the centre of each pixel of the image, int64 [size]; Pillow steps from each to the next."""
    start, scale = _scale(outer, side, size)
    first = outer("Add", start, outer("Mul", scale, _double(outer, 0.5)))
    steps = outer("Expand", outer.row(scale), outer.constant([size - 1]))
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
