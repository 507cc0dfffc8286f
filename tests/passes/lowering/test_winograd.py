"""Minimal filtering: the transforms are exact, and rounding stays where the choice of lowerings expects it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from kcompiler.passes.lowering.filtering import LARGEST, exact_filtering, filtering
from kcompiler.passes.lowering.select import LOWERINGS
from kcompiler.passes.regions.geometry import Window

CASES = [
    (outputs, kernel, stride)
    for outputs in range(1, 9)
    for kernel in range(1, 8)
    for stride in (1, 2, 3)
    if outputs + -(-kernel // stride) - 1 <= LARGEST
]


@pytest.mark.parametrize(("outputs", "kernel", "stride"), CASES)
def test_transforms_are_exact_in_rational_arithmetic(outputs, kernel, stride):
    """Output i must be the sum over taps t of weight t times input i * stride + t: every coefficient, as a fraction."""
    output, weights, inputs = exact_filtering(outputs, kernel, stride)
    for i in range(outputs):
        for tap in range(kernel):
            products = [output[i][n] * weights[n][tap] for n in range(len(inputs))]
            for cell in range(len(inputs[0])):
                coefficient = sum((p * row[cell] for p, row in zip(products, inputs, strict=True)), Fraction(0))
                assert coefficient == (cell == i * stride + tap)


@pytest.mark.parametrize(("outputs", "kernel"), [(2, 3), (4, 3), (6, 3), (4, 5), (6, 7)])
def test_products_are_the_minimum(outputs, kernel):
    assert filtering(outputs, kernel).products == outputs + kernel - 1


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("kernel", [3, 5])
def test_predicted_rounding_is_near_the_measured(size, kernel):
    lowering = next(one for one in LOWERINGS["Conv"] if one.name == f"winograd {size}")
    algorithm, rng = filtering(size, kernel), np.random.default_rng(0)
    tiles = rng.standard_normal((algorithm.reach, algorithm.reach, 64, 32))
    weights = rng.standard_normal((kernel, kernel, 32, 16))
    found = _convolved(algorithm, tiles, weights, np.float32)
    exact = _convolved(algorithm, tiles, weights, np.float64)
    measured = np.sqrt(((found - exact) ** 2).mean()) / exact.std()
    window = Window(inputs=99, outputs=99 - kernel + 1, kernel=kernel)
    predicted = 1.1e-7 * lowering.rounding((window, window))
    assert predicted / 4 < measured < predicted * 4


def _convolved(algorithm, tiles, weights, dtype):
    u = np.einsum("ai,bj,ijck->abck", algorithm.weights, algorithm.weights, weights).astype(dtype)
    v = np.einsum("ai,ijtc->ajtc", algorithm.inputs.astype(dtype), tiles.astype(dtype))
    v = np.einsum("bj,ajtc->abtc", algorithm.inputs.astype(dtype), v)
    m = np.einsum("abtc,abck->abtk", v, u)
    return np.einsum("ia,jb,abtk->ijtk", algorithm.output.astype(dtype), algorithm.output.astype(dtype), m)


@pytest.mark.parametrize(("outputs", "group", "applies"), [(16, 1, True), (15, 1, False), (64, 2, False)])
def test_values_are_convolved_where_outputs_far_outnumber_inputs(outputs, group, applies):
    weights = gs.Constant("weights", np.zeros((outputs, 8, 3, 3), np.float32))
    node = gs.Node("Conv", attrs={"group": group}, inputs=[gs.Variable("x"), weights])
    windows = (Window(inputs=20, outputs=18, kernel=3),) * 2
    of_changes, of_values = ({one.name: one for one in LOWERINGS["Conv"]}[f"winograd 4{form}"] for form in ("", " of values"))
    assert of_values.applies(node, windows) == applies
    assert of_values.rounding(windows) > of_changes.rounding(windows)
