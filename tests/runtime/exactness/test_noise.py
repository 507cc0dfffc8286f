"""The allowance for rounding: held by what rounds alike, exceeded by what does not, however many columns there are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import polygamma

from kcompiler.runtime.exactness.noise import HEAD_STEPS, STEPS, _trigamma_inverse, allowed_noise, degrees_of_freedom, moderated

POSITIONS = 12
DEVIATION = 3e-7


def heads(rng, columns, deviations, shared=0.5, reorderings=3):
    """Outputs [N, K] of magnitude 1, and the same with noise of ``deviations`` [K]; positions share a part of its variance."""

    def noise():
        own, common = rng.standard_normal((POSITIONS, columns)), rng.standard_normal((1, columns))
        return deviations * (np.sqrt(1 - shared) * own + np.sqrt(shared) * common)

    full = rng.uniform(0.5, 1, (POSITIONS, columns))
    return full.astype(np.float32), [full + noise() for _ in range(reorderings)], full + noise()


@pytest.mark.parametrize("shared", [0.0, 0.2, 0.6])
@pytest.mark.parametrize("columns", [1, 2, 5, 100, 1000])
def test_what_rounds_alike_is_allowed(columns, shared):
    """1000 columns are not refused for the largest error being the largest of more."""
    rng = np.random.default_rng(columns)
    for _ in range(40):
        full, reordered, compiled = heads(rng, columns, DEVIATION, shared)
        assert (np.abs(compiled - full).max(axis=0) <= allowed_noise(full, reordered)).all()


@pytest.mark.parametrize("columns", [5, 100, 1000])
def test_the_allowance_is_not_loose(columns):
    """Twelve deviations are too much wherever there are a few columns to learn from."""
    rng = np.random.default_rng(columns)
    full, reordered, _ = heads(rng, columns, DEVIATION, 0.1)
    assert (allowed_noise(full, reordered) < 12 * DEVIATION).all()


def test_columns_that_differ_are_not_excused_by_each_other():
    rng = np.random.default_rng(1)
    deviations = np.array([1e-3, 1e-5, 1e-7, 1e-6, 1e-4, 1e-2] * 20)
    full, reordered, compiled = heads(rng, len(deviations), deviations, 0.1)
    allowed = allowed_noise(full, reordered)
    assert (np.abs(compiled - full).max(axis=0) <= allowed).all()
    assert (allowed < 60 * np.maximum(deviations, 2e-7)).all()


def test_one_column_noisier_than_all_others_keeps_its_own_allowance():
    rng = np.random.default_rng(2)
    deviations = np.full(1000, DEVIATION)
    deviations[7] *= 30
    full, reordered, compiled = heads(rng, 1000, deviations, 0.1)
    assert (np.abs(compiled - full).max(axis=0) <= allowed_noise(full, reordered)).all()


@pytest.mark.parametrize("power", [1e-30, 1e-4, 1e4, 1e30])
def test_no_units(power):
    full, reordered, _ = heads(np.random.default_rng(3), 10, DEVIATION)
    scaled = allowed_noise((full.astype(np.float64) * power).astype(np.float32), [one * power for one in reordered])
    np.testing.assert_allclose(scaled / power, allowed_noise(full, reordered), rtol=0.2)


def test_reorderings_that_change_no_bit_tell_nothing():
    full, reordered, _ = heads(np.random.default_rng(4), 10, DEVIATION)
    magnitude = np.abs(full).max(axis=0).astype(np.float64)
    steps = np.finfo(np.float32).eps * np.maximum(STEPS * magnitude, HEAD_STEPS * magnitude.max())
    np.testing.assert_array_equal(allowed_noise(full, [full, full]), steps)
    np.testing.assert_array_equal(allowed_noise(full, [full, *reordered, full]), allowed_noise(full, reordered))


def test_numbers_too_small_for_full_precision_have_steps_of_their_own():
    """As probabilities that are nearly zero."""
    full = np.full((5, 1), 1e-44, np.float32)
    least = float(np.finfo(np.float32).smallest_subnormal)
    assert least < allowed_noise(full, [])[0] < 10 * least


def test_zeros_are_allowed_next_to_nothing():
    full, reordered, _ = heads(np.random.default_rng(5), 10, DEVIATION)
    for one in (full, *reordered):
        one[:, 3] = 0
    allowed = allowed_noise(full, reordered)
    assert 0 < allowed[3] < 1e-9
    assert np.isfinite(allowed).all()
    zeros = np.zeros((5, 2), np.float32)
    assert allowed_noise(zeros, [zeros]).tolist() == [0, 0]


def test_positions_at_which_a_relu_cuts_a_column_off_do_not_dilute_its_noise():
    rng = np.random.default_rng(10)
    for _ in range(40):
        full, reordered, compiled = heads(rng, 100, DEVIATION, 0.0)
        seen = np.zeros(full.shape, np.bool_)
        seen[:, :50] = True
        seen[rng.integers(0, POSITIONS, 50), np.arange(50, 100)] = True  # half of the columns at one position each
        full, compiled, *reordered = (np.where(seen, one, 0).astype(one.dtype) for one in (full, compiled, *reordered))
        assert (np.abs(compiled - full).max(axis=0) <= allowed_noise(full, reordered)).all()


def test_boxes_do_not_excuse_scores():
    """Of a detector: coordinates in the hundreds, scores near zero, each with the noise of their own size."""
    rng = np.random.default_rng(8)
    full = np.concatenate([rng.uniform(550, 600, (8, 4)), rng.uniform(0, 1e-5, (8, 4))], axis=1)
    reordered = [full * (1 + 1e-7 * rng.standard_normal(full.shape)) for _ in range(3)]
    allowed = allowed_noise(full.astype(np.float32), reordered)
    assert (allowed[4:] < 1e-3 * 1e-5).all()


def test_a_reordering_that_is_not_finite_and_copies_of_others_tell_nothing():
    full, reordered, _ = heads(np.random.default_rng(9), 10, DEVIATION)
    broken = reordered[0].copy()
    broken[1, 1] = np.inf
    usual = allowed_noise(full, reordered)
    np.testing.assert_array_equal(allowed_noise(full, [*reordered, broken]), usual)
    np.testing.assert_array_equal(allowed_noise(full, [*reordered, *reordered]), usual)


@pytest.mark.parametrize("positions", [2, 8])
@pytest.mark.parametrize("shared", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_degrees_of_freedom_are_those_of_a_mean_square(shared, positions):
    """By the variance of mean squares, of many columns alike: twice the squared mean over the degrees of freedom."""
    rng = np.random.default_rng(6)
    own, common = rng.standard_normal((3, positions, 20000)), rng.standard_normal((3, 1, 20000))
    draws = np.sqrt(1 - shared) * own + np.sqrt(shared) * common
    squares = (draws**2).mean(axis=(0, 1))
    assert degrees_of_freedom(draws) == pytest.approx(2 * squares.mean() ** 2 / squares.var(), rel=0.1)
    loud = draws * np.where(np.arange(20000) == 7, 1e3, 1.0)
    assert degrees_of_freedom(loud) == pytest.approx(degrees_of_freedom(draws), rel=0.05)


def test_moderation_is_total_for_equal_variances_and_none_for_unlike_ones():
    rng = np.random.default_rng(7)
    drawn = rng.chisquare(8, 5000) / 8
    moderate, freedom = moderated(drawn, np.full(5000, 8.0))
    assert (freedom > 100).all()
    assert np.ptp(moderate) < 0.3
    unlike = np.exp(rng.normal(0, 3, 5000)) * drawn
    moderate, freedom = moderated(unlike, np.full(5000, 8.0))
    assert (freedom < 9).all()
    large = unlike > np.median(unlike)
    np.testing.assert_allclose(np.log(moderate[large] / unlike[large]), 0, atol=0.2)


@pytest.mark.parametrize("value", [1e-8, 1e-3, 0.5, 3.0, 1e4, 1e9])
def test_inverse_of_trigamma(value):
    assert float(polygamma(1, _trigamma_inverse(value))) == pytest.approx(value, rel=1e-3)
