"""What errors of logits make of probabilities stays within what is passed on, and is nearly reached."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from kcompiler.runtime.exactness.squashing import Squashing

FUNCTIONS = {"Softmax": lambda z: softmax(z, axis=1), "LogSoftmax": lambda z: log_softmax(z, axis=1), "Sigmoid": expit}


@pytest.mark.parametrize("allowed", [1e-6, 1e-3, 0.3, 5.0])
@pytest.mark.parametrize("factor", [1.0, 100.0])
@pytest.mark.parametrize("operator", FUNCTIONS)
def test_bound_holds_and_is_tight(operator, factor, allowed):
    rng = np.random.default_rng(0)
    squash = FUNCTIONS[operator]
    logits = rng.normal(0, 3, (200, 4))
    outputs = factor * squash(logits)
    bound = Squashing(operator=operator, factor=factor).passed_on(outputs.astype(np.float32), np.full(logits.shape, allowed))
    largest = np.zeros(logits.shape)
    for signs in np.ndindex(2, 2, 2, 2):
        moved = factor * squash(logits + allowed * (2 * np.array(signs) - 1))
        largest = np.maximum(largest, np.abs(moved - outputs))
    rounding = 1e-6 * factor * np.exp(allowed)  # of probabilities near 1, whose odds float32 hardly tells
    assert (largest <= bound * (1 + 1e-5) + rounding).all()
    assert (bound <= largest * 2.1 + rounding).all()
    assert np.median(bound / (largest + rounding)) < 1.2


def test_saturated_probabilities_are_finite():
    outputs = np.float32([[1.0, 0.0]])
    bound = Squashing(operator="Softmax").passed_on(outputs, np.full((1, 2), 1e6))
    assert np.isfinite(bound).all()
    assert (bound <= 1).all()


@pytest.mark.parametrize("operator", FUNCTIONS)
@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_probabilities_too_small_for_full_precision_may_be_off_by_their_last_places(operator, factor):
    outputs = (np.float32(factor) * np.float32([[1.0, 2e-44], [1.0, 1e-38]])).astype(np.float32)
    bound = Squashing(operator=operator, factor=factor).passed_on(outputs, np.zeros((2, 2)))
    step = float(np.finfo(np.float32).smallest_subnormal)
    assert (bound >= 2 * factor * step).all(), "a factor behind the softmax multiplies what its result is rounded to"
    assert (bound <= 1e-37 * factor).all()
