"""Preprocessing inside a map model: from a picture of any size to the model's image, as the Python driver does it.

A picture is resized by two matrix products, along x and then along y, as Pillow does. Their weights follow from the picture's
size, which is known at run time (:mod:`sides`). Source of the filters, and of the order of rounding: Pillow's Resample.c and
Geometry.c.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from kcompiler.passes.deployment.builder import Builder
from kcompiler.passes.deployment.sides import Side, sides_of
from kcompiler.runtime.deployed import COLOUR, PICTURE, SEEN
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.elements import Element
from kcompiler.runtime.inputs.preprocessing import LUMA, Preprocessing
from kcompiler.runtime.inputs.windows import WHITE

BICUBIC = -0.5
"""Parameter of the cubic filter."""
FIXED_POINT = float(1 << 22)
"""In which Pillow holds weights of 8-bit pixels."""


def check_recipe(recipe: Preprocessing) -> None:
    """Raises a :class:`UsageError` if a field of the recipe has no form inside a model."""
    why = {
        "bits": "the model takes pictures of 8 bits" if recipe.bits is not None else "",
        "window": "the model takes pictures, not values" if recipe.window is not None else "",
        "interpolation 'nearest' with a shorter_side below the size": "it takes crop_at 'floor' or 'round'"
        if recipe.interpolation == "nearest"
        and (recipe.resize, recipe.crop_at) == ("crop", "fraction")
        and recipe.shorter < max(recipe.size)
        else "",
    }
    for field, reason in why.items():
        if reason:
            raise UsageError(
                f"{field} of the preprocessing has no form inside an exported model: {reason}; export without --preprocess"
            )


def image_of(outer: Builder, recipe: Preprocessing, element: Element) -> str:
    """Emits the model's image, float32 [1, C, H, W], from the picture, uint8 [height, width, C]; and the box that it shows."""
    sides = sides_of(outer, recipe)
    bounds = [(side, side.start) for side in sides] + [(side, side.stop(outer)) for side in sides]
    outer("Concat", *(outer.row(_in_pixels(outer, *bound)) for bound in bounds), axis=0, name=SEEN)
    planes = _planes(outer, recipe)
    if recipe.interpolation == "nearest":
        for axis, side in ((1, sides[0]), (2, sides[1])):
            planes = outer("Gather", planes, _nearest(outer, side), axis=axis)
    else:
        planes = _resampled(outer, planes, sides, recipe)
    planes = _padded(outer, planes, sides, recipe)
    return outer("Unsqueeze", _in_units(outer, planes, recipe, element, [-1, 1, 1]), outer.constant([0]))


def _planes(outer: Builder, recipe: Preprocessing) -> str:
    """The picture's channels, float32 [C, height, width], as many as the model takes and in its order."""
    planes = outer("Transpose", outer("Cast", PICTURE, to=TensorProto.FLOAT), perm=[2, 0, 1])
    if recipe.channel_order == "BGR":
        planes = outer("Gather", planes, outer.constant([2, 1, 0]))
    if recipe.gray:  # whole numbers below 2^24: exact in float32
        weighted = outer("Mul", planes, outer.constant(np.array(LUMA, np.float32).reshape(3, 1, 1)))
        total = outer("ReduceSum", weighted, outer.constant([0]), keepdims=1)
        planes = outer("Floor", outer("Add", outer("Mul", total, outer.number(1 / 65536)), outer.number(0.5)))
    return outer("Sub", outer.number(WHITE), planes) if recipe.invert else planes


def _resampled(outer: Builder, planes: str, sides: tuple[Side, Side], recipe: Preprocessing) -> str:
    """Along x and then along y, float32; where the recipe rounds, in Pillow's numbers, which float64 holds exactly."""
    if recipe.rounded:
        exact = _Doubles(outer)
        along_y, along_x = (_in_fixed_point(exact, _weights(exact, side, recipe.interpolation)) for side in sides)
        narrowed = _rounded(exact, exact("MatMul", _wide(exact, planes), exact("Transpose", along_x, perm=[1, 0])))
        return outer("Cast", _rounded(exact, exact("MatMul", along_y, narrowed)), to=TensorProto.FLOAT)
    along_y, along_x = (_weights(outer, side, recipe.interpolation) for side in sides)
    return outer("MatMul", along_y, outer("MatMul", planes, outer("Transpose", along_x, perm=[1, 0])))


class _Doubles(Builder):
    """A builder of the same graph whose numbers are float64."""

    def __init__(self, outer: Builder) -> None:
        self.prefix, self.nodes, self.initializers = outer.prefix, outer.nodes, outer.initializers

    def number(self, value: float) -> str:
        """Adds a float64 scalar."""
        return self.constant(np.array(value, np.float64))


def _wide(outer: Builder, value: str) -> str:
    """A tensor as the numbers that ``outer`` makes."""
    return outer("Cast", value, to=TensorProto.DOUBLE if isinstance(outer, _Doubles) else TensorProto.FLOAT)


def _in_fixed_point(outer: Builder, weights: str) -> str:
    """Weights over 2^-22, rounded to whole numbers, half away from 0."""
    magnitude = outer("Floor", outer("Add", outer("Mul", outer("Abs", weights), outer.number(FIXED_POINT)), outer.number(0.5)))
    return outer("Mul", outer("Sign", weights), magnitude)


def _rounded(outer: Builder, sums: str) -> str:
    """Sums over 2^-22 as pixels: rounded, half up, from 0 to 255."""
    whole = outer("Floor", outer("Add", outer("Mul", sums, outer.number(1 / FIXED_POINT)), outer.number(0.5)))
    return outer("Clip", whole, outer.number(0), outer.number(WHITE))


def _padded(outer: Builder, planes: str, sides: tuple[Side, Side], recipe: Preprocessing) -> str:
    """With the padding's colour where the model's image lies outside of the picture."""
    if not any(side.padded for side in sides):
        return planes
    colour = recipe.padding()[::-1] if recipe.channel_order == "BGR" else recipe.padding()
    y, x = (_inside(outer, side) for side in sides)
    inside = outer("And", outer("Unsqueeze", y, outer.constant([1])), outer("Unsqueeze", x, outer.constant([0])))
    return outer("Where", inside, planes, outer.constant(np.array(colour, np.float32).reshape(-1, 1, 1)))


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


def _in_pixels(outer: Builder, side: Side, numerator: str) -> str:
    """A coordinate in the picture; where the model sees padding, that of the picture's edge."""
    parts = outer("Mul", side.parts, outer.constant(2))
    numerator, parts = (outer("Cast", value, to=TensorProto.FLOAT) for value in (numerator, parts))
    place = outer("Div", numerator, parts)
    if not side.padded:
        return place
    return outer("Min", outer("Max", place, outer.number(0)), outer("Cast", side.pixels, to=TensorProto.FLOAT))


def _centres(outer: Builder, side: Side) -> str:
    """Of the image's pixels in the picture, int64 [size], numerators over 2 * parts."""
    return outer("Add", side.start, outer("Mul", outer.constant(2 * np.arange(side.size) + 1), side.extent))


def _end(outer: Builder, side: Side) -> str:
    """The picture's last edge, int64 [], over 2 * parts."""
    return outer("Mul", outer("Mul", side.pixels, side.parts), outer.constant(2))


def _inside(outer: Builder, side: Side) -> str:
    """Which of the image's pixels lie in the picture, bool [size]."""
    centres = _centres(outer, side)
    return outer("And", outer("Not", outer("Less", centres, outer.constant(0))), outer("Less", centres, _end(outer, side)))


def _weights(outer: Builder, side: Side, interpolation: str) -> str:
    """What each pixel of the image has of each pixel of the picture along an axis, [size, pixels]."""
    centres = _centres(outer, side)
    if side.padded:  # these weights are not used, but have a sum
        centres = outer("Min", outer("Max", centres, outer.constant(0)), _end(outer, side))
    centres = outer("Unsqueeze", centres, outer.constant([1]))
    inputs = outer("Range", outer.constant(0), side.pixels, outer.constant(1))
    places = outer("Add", outer("Mul", inputs, outer("Mul", side.parts, outer.constant(2))), side.parts)
    # Where pixels are merged, the filter is as wide as all of them: antialiasing.
    width = outer("Max", side.extent, side.parts)
    distance, widths = (_wide(outer, value) for value in (outer("Sub", places, centres), width))
    weights = FILTERS[interpolation](outer, outer("Abs", outer("Div", distance, outer("Mul", widths, outer.number(2)))))
    return outer("Div", weights, outer("ReduceSum", weights, outer.constant([1]), keepdims=1))


def _nearest(outer: Builder, side: Side) -> str:
    """The pixel of the picture under the centre of each pixel of the image, int64 [size].

    Pillow steps from each to the next in float64, from a box in float32: where a centre falls on a border, the sums decide. A
    picture that is scaled to whole pixels is scaled whole, and then cut.
    """
    if side.scaled is not None:
        extent, first = side.scaled
        pixels = outer("Cast", side.pixels, to=TensorProto.DOUBLE)
        step = outer("Div", pixels, outer("Cast", extent, to=TensorProto.DOUBLE))
        everything = _stepped(outer, outer.constant(np.array(0.0)), step, outer("Sub", extent, outer.constant(1)))
        wanted = outer("Add", first, outer.constant(np.arange(side.size)))
        last = outer("Sub", extent, outer.constant(1))
        return outer("Gather", everything, outer("Min", outer("Max", wanted, outer.constant(0)), last))
    numerators = (outer("Cast", bound, to=TensorProto.DOUBLE) for bound in (side.start, side.stop(outer)))
    half_pixels = outer("Cast", outer("Mul", side.parts, outer.constant(2)), to=TensorProto.DOUBLE)
    start, stop = (outer("Cast", outer("Div", bound, half_pixels), to=TensorProto.FLOAT) for bound in numerators)
    whole = outer("Cast", outer("Sub", stop, start), to=TensorProto.DOUBLE)
    step = outer("Div", whole, outer.constant(np.array(float(side.size))))
    return _stepped(outer, outer("Cast", start, to=TensorProto.DOUBLE), step, outer.constant(side.size - 1))


def _stepped(outer: Builder, start: str, step: str, count: str) -> str:
    """The pixels at half a step from ``start``, and at ``count`` steps more, int64 [1 + count]."""
    first = outer("Add", start, outer("Mul", step, outer.constant(np.array(0.5))))
    steps = outer("Expand", outer.row(step), outer.row(count))
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


FILTERS: dict[str, Callable[[Builder, str], str]] = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}
"""By name: from distances in widths of the filter to weights."""
