"""Minimal filtering: exact transforms for one-dimensional convolution, nested for two dimensions.

``m`` neighbouring outputs of a ``kernel``-tap convolution are linear in the products of ``n`` transformed inputs and ``n``
transformed weights, ``output @ ((weights @ w) * (inputs @ x))``, with ``n = m + kernel - 1`` (Winograd's minimum) instead of
``m * kernel``. The three matrices come from Cook-Toom interpolation in exact rational arithmetic. A strided convolution is
a sum of ``stride`` unit-stride convolutions over every stride-th cell, whose transforms are concatenated.

Source: Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016; for the choice of points, Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd
Convolution for Deep Neural Networks", TOMS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from kcompiler.runtime.arrays import DoubleArray

Matrix = tuple[tuple[Fraction, ...], ...]

POINTS: dict[int, str] = {
    0: "",
    1: "0",
    2: "0 1",
    3: "0 1 -1",
    4: "0 1 -1 -1/2",
    5: "0 1 -1 -1/2 2",
    6: "0 1 -1 -1/3 3/2 -2",
    7: "0 1 -1 -1/2 1/2 -2 2",
    8: "0 1 -1 -1/3 1/2 -4/3 3/2 -3",
    9: "0 1 -1 -1/3 1/2 -3/4 4/3 -2 3",
    10: "0 1 -1 -1/3 1/2 -2/3 3/4 -3/2 2 -4",
    11: "0 1 -1 1/3 -1/3 2/3 -2/3 3/2 -3/2 3 -3",
}
"""Finite interpolation points by their count; the point at infinity is always added. Of all sets of small fractions, these
amplify rounding least, for 3 taps (up to 7 points) or 7 taps (from 8 points)."""
LARGEST = max(POINTS) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Filtering:
    """A minimal filtering algorithm for a tile of neighbouring outputs along one axis.

    Attributes:
        outputs: m, outputs in a tile.
        reach: input cells in the receptive field of a tile.
        products: n, elementwise products of a tile.
        output: [m, n], the output transform.
        weights: [n, kernel], the weight transform.
        inputs: [n, reach], the input transform.
    """

    outputs: int
    reach: int
    products: int
    output: DoubleArray
    weights: DoubleArray
    inputs: DoubleArray


@cache
def filtering(outputs: int, kernel: int, stride: int = 1) -> Filtering:
    """The algorithm for ``outputs`` neighbouring outputs of a ``kernel``-tap convolution of ``stride``."""
    output, weights, inputs = exact_filtering(outputs, kernel, stride)
    reach = (outputs - 1) * stride + kernel
    return Filtering(outputs, reach, len(weights), as_floats(output), as_floats(weights), as_floats(inputs))


def exact_filtering(outputs: int, kernel: int, stride: int = 1) -> tuple[Matrix, Matrix, Matrix]:
    """The transforms (output, weights, inputs) as fractions; see :class:`Filtering` for their shapes."""
    reach = (outputs - 1) * stride + kernel
    output: list[list[Fraction]] = [[] for _ in range(outputs)]
    weights: list[tuple[Fraction, ...]] = []
    inputs: list[tuple[Fraction, ...]] = []
    for phase in range(min(stride, kernel)):
        taps = range(phase, kernel, stride)
        part_output, part_weights, part_inputs = cook_toom(outputs, len(taps))
        for row, part in zip(output, part_output, strict=True):
            row.extend(part)
        weights += [_scatter(row, taps, kernel) for row in part_weights]
        inputs += [_scatter(row, range(phase, phase + stride * len(row), stride), reach) for row in part_inputs]
    return tuple(map(tuple, output)), tuple(weights), tuple(inputs)


def cook_toom(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Unit-stride filtering: the transpose of polynomial multiplication by evaluation and interpolation."""
    points = [Fraction(point) for point in POINTS[outputs + taps - 2].split()]
    output = tuple((*(p**i for p in points), Fraction(i == outputs - 1)) for i in range(outputs))
    weights, inputs = [], []
    for index, point in enumerate(points):
        others = points[:index] + points[index + 1 :]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        weights.append(tuple(point**tap / scale for tap in range(taps)))
        inputs.append((*_product(others), Fraction(0)))
    weights.append(tuple(Fraction(tap == taps - 1) for tap in range(taps)))
    inputs.append(_product(points))
    return output, tuple(weights), tuple(inputs)


def _product(roots: list[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients, lowest first, of the monic polynomial with ``roots``."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(coefficients)


def _scatter(row: tuple[Fraction, ...], indices: range, size: int) -> tuple[Fraction, ...]:
    values = [Fraction(0)] * size
    for index, value in zip(indices, row, strict=True):
        values[index] = value
    return tuple(values)


def as_floats(matrix: Matrix) -> DoubleArray:
    return np.array([[float(value) for value in row] for row in matrix], dtype=np.float64)
