"""The comparison refuses what it must, accepts what float32 cannot tell apart, and knows no units."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kcompiler.runtime.exactness.compare import MAP_SHARE, OUTPUT_SHARE, compare, worst


def never(numbers) -> list[np.ndarray]:
    raise AssertionError("noise is measured only where it decides")


def nothing(numbers) -> list[np.ndarray]:
    return []


RNG = np.random.default_rng(0)
FULL = RNG.standard_normal((50, 4)).astype(np.float32)
MAGNITUDE = np.abs(FULL).max()
POWERS = (1e-20, 1e-4, 1.0, 1e4, 1e20)


@pytest.fixture(autouse=True)
def same_numbers(monkeypatch):
    """Each test draws its own, whichever ran before it."""
    monkeypatch.setattr(sys.modules[__name__], "RNG", np.random.default_rng(1))


def off_by(full: np.ndarray, error: float, place: tuple[int, int] = (7, 2)) -> np.ndarray:
    outputs = full.astype(np.float64)
    outputs[place] += error
    return outputs.astype(np.float32)


def test_equal_outputs_agree():
    assert compare(FULL.copy(), FULL, never).agrees


@pytest.mark.parametrize("power", POWERS)
def test_an_output_may_be_off_by_a_share_of_the_largest_of_all(power):
    full = FULL * np.float32(power)
    allowed = OUTPUT_SHARE * float(MAGNITUDE) * power
    assert compare(off_by(full, 0.7 * allowed), full, never).agrees
    assert compare(off_by(full, 0.9 * allowed), full, nothing).agrees
    comparison = compare(off_by(full, 1.2 * allowed), full, nothing)
    assert not comparison.agrees
    assert comparison.reason.startswith("output 2 at position 7 is ")
    assert comparison.output_error == pytest.approx(1.2, rel=0.05)
    assert comparison.largest_error == pytest.approx(1.2 * allowed, rel=0.05)


@pytest.mark.parametrize(("error", "rounding"), [(4e-5, True), (1e-3, False)])
def test_an_error_far_beyond_what_the_order_of_sums_explains_is_no_rounding(error, rounding):
    noisy = [FULL + 2e-6 * RNG.standard_normal(FULL.shape).astype(np.float32) for _ in range(3)]
    comparison = compare(off_by(FULL, error), FULL, lambda numbers: [one[numbers] for one in noisy])
    assert not comparison.agrees
    assert comparison.rounding is rounding
    assert worst({"logits": comparison, "output": compare(FULL, FULL, never)}).rounding is rounding


@pytest.mark.parametrize("power", POWERS)
def test_a_flat_map_must_stay_flat(power):
    """A column of 1 moves by 1e-3 only: an error of 1.5e-6 passes the outputs' tolerance, but spoils the map."""
    full = ((1 + 1e-3 * RNG.random((50, 1))) * power).astype(np.float32)
    outputs = off_by(full, 1.5e-6 * power, (3, 0))
    comparison = compare(outputs, full, nothing)
    assert not comparison.agrees
    assert comparison.output_error < 1 < comparison.map_error
    assert comparison.reason.startswith("the map of output 0 is off by")
    assert compare(off_by(full, 0.5 * MAP_SHARE * 1e-3 * power, (3, 0)), full, nothing).agrees
    noisy = [(full * (1 + 1e-6 * RNG.standard_normal(full.shape))).astype(np.float32) for _ in range(3)]
    assert compare(outputs, full, lambda numbers: [one[numbers] for one in noisy]).agrees, (
        "full inference with other sums is off by as much"
    )


def test_noise_of_a_large_column_does_not_excuse_a_small_one():
    """Softmax: class 0 near 1 is noisy by 1e-6; class 1 near 1e-6 may not be off by as much."""
    full = np.tile(np.float32([0.9, 1e-6]), (20, 1))
    noisy = [full + np.float32([1e-6, 0]) * RNG.standard_normal((20, 1), np.float32) for _ in range(3)]
    assert not compare(off_by(full, 5e-7, (4, 1)), full, lambda numbers: [one[numbers] for one in noisy]).agrees


def test_a_column_near_zero_does_not_excuse_others():
    """Its relative noise is 1; the other map is reversed, within the outputs' tolerance."""
    columns = [np.full(20, 1e-12), 10 + 2e-5 * RNG.random(20), 10 + 2e-5 * RNG.random(20)]
    full = np.stack(columns, axis=1).astype(np.float32)
    reordered = full * np.float32([-1, 1, 1])
    outputs = full.copy()
    outputs[:, 1] = outputs[::-1, 1]
    assert not compare(outputs, full, lambda numbers: [reordered[numbers]]).agrees


def test_what_is_passed_on_is_allowed_besides():
    passed_on = np.zeros(FULL.shape)
    passed_on[7, 2] = 0.011
    assert compare(off_by(FULL, 0.01), FULL, nothing, passed_on).agrees
    assert not compare(off_by(FULL, 0.01, (8, 2)), FULL, nothing, passed_on).agrees


def test_infinities_must_be_the_same_and_the_rest_is_compared():
    full = FULL.copy()
    full[:, 1] = -np.inf
    full[3, 2] = np.nan
    assert compare(full.copy(), full, lambda numbers: [full[numbers]]).agrees
    assert not compare(off_by(full, 0.1, (5, 0)), full, lambda numbers: [full[numbers]]).agrees
    outputs = full.copy()
    outputs[5, 1] = np.inf
    assert not compare(outputs, full, lambda numbers: [full[numbers]]).agrees


def test_outputs_that_are_not_finite_never_agree_with_numbers():
    outputs = FULL.copy()
    outputs[0, 0] = np.nan
    assert not compare(outputs, FULL, never).agrees


def test_another_shape_does_not_agree():
    assert not compare(FULL[:, :3], FULL, never).agrees


def test_zeros_must_be_zeros():
    zeros = np.zeros((5, 2), np.float32)
    assert compare(zeros, zeros, never).agrees
    assert not compare(off_by(zeros, 1e-30, (0, 0)), zeros, nothing).agrees


def test_of_several_outputs_each_must_agree():
    good, bad = (compare(one, FULL, nothing) for one in (FULL, off_by(FULL, 0.01)))
    both = worst({"probabilities": good, "logits": bad})
    assert not both.agrees
    assert both.largest_error == bad.largest_error > good.largest_error
    assert both.reason.startswith("logits: output 2 at position 7")
    assert worst({"probabilities": good}) == good


def test_what_agrees_does_not_make_a_defect_of_rounding_elsewhere():
    """Far beyond its noise, but within a thousandth of its range; the other is flat, and off by a little more than its noise."""
    rng = np.random.default_rng(1)
    full = np.stack([100 * rng.random(50), 100 + 1e-4 * rng.random(50)], axis=1).astype(np.float32)
    noisy = [(full + [1e-6, 1e-5] * rng.standard_normal(full.shape)).astype(np.float32) for _ in range(3)]
    outputs = full + np.float32([3e-4, 1.5e-4])
    comparison = compare(outputs, full, lambda numbers: [one[numbers] for one in noisy])
    assert not comparison.agrees
    assert comparison.rounding
