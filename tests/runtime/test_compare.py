"""The comparison refuses what it must and accepts what float32 cannot tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.compare import compare, worst


def never() -> np.ndarray:
    raise AssertionError("noise is measured only where it decides")


RNG = np.random.default_rng(0)
FULL = RNG.standard_normal((50, 4)).astype(np.float32)


def test_equal_outputs_agree():
    assert compare(FULL.copy(), FULL, never).agrees


def test_an_error_within_a_thousandth_of_the_range_agrees():
    outputs = FULL.copy()
    outputs[7, 2] *= 1 + 5e-5
    assert compare(outputs, FULL, never).agrees


def test_an_output_beyond_the_relative_tolerance_is_named():
    outputs = FULL.copy()
    outputs[7, 2] += 0.01
    comparison = compare(outputs, FULL, lambda: FULL)
    assert not comparison.agrees
    assert "output 2 at position 7" in comparison.reason
    assert comparison.largest_error == pytest.approx(0.01, rel=1e-3)


def test_a_flat_map_must_stay_flat():
    """The whole column moves by 1e-4 only: an error of 1e-6 passes the outputs' tolerance, but spoils the map."""
    full = (1 + 1e-4 * RNG.random((50, 1))).astype(np.float32)
    outputs = full.copy()
    outputs[3, 0] += 2e-6
    assert not compare(outputs, full, lambda: full).agrees
    noisy = full.copy()
    noisy[5, 0] += 2e-6
    assert compare(outputs, full, lambda: noisy).agrees


def test_noise_of_a_large_column_does_not_excuse_a_small_one():
    """Softmax: class 0 near 1 is noisy by 1e-6; class 1 near 1e-6 may not be off by as much."""
    full = np.tile(np.float32([0.9, 1e-6]), (20, 1))
    unoptimised = full + np.float32([1e-6, 0])
    outputs = full.copy()
    outputs[4, 1] += 5e-7
    assert not compare(outputs, full, lambda: unoptimised).agrees


def test_a_column_near_zero_does_not_excuse_others():
    """Its relative noise is 1; the other map is reversed, within the outputs' tolerance."""
    full = np.stack([np.full(20, 1e-12), 10 + 5e-4 * RNG.random(20), 10 + 5e-4 * RNG.random(20)], axis=1).astype(np.float32)
    unoptimised = full * np.float32([-1, 1, 1])
    outputs = full.copy()
    outputs[:, 1] = outputs[::-1, 1]
    assert not compare(outputs, full, lambda: unoptimised).agrees


def test_infinities_must_be_the_same_and_the_rest_is_compared():
    full = FULL.copy()
    full[:, 1] = -np.inf
    full[3, 2] = np.nan
    assert compare(full.copy(), full, lambda: full).agrees
    outputs = full.copy()
    outputs[5, 0] += 0.1
    assert not compare(outputs, full, lambda: full).agrees
    outputs = full.copy()
    outputs[5, 1] = np.inf
    assert not compare(outputs, full, lambda: full).agrees


def test_outputs_that_are_not_finite_never_agree_with_numbers():
    outputs = FULL.copy()
    outputs[0, 0] = np.nan
    assert not compare(outputs, FULL, never).agrees


def test_another_shape_does_not_agree():
    assert not compare(FULL[:, :3], FULL, never).agrees


def test_of_several_outputs_each_must_agree():
    outputs = FULL.copy()
    outputs[7, 2] += 0.01
    good, bad = (compare(one, FULL, lambda: FULL) for one in (FULL, outputs))
    both = worst({"probabilities": good, "logits": bad})
    assert not both.agrees
    assert both.largest_error == bad.largest_error > good.largest_error
    assert both.reason.startswith("logits: output 2 at position 7")
    assert worst({"probabilities": good}) == good
