"""Measures of approximate maps against their definitions, and where maps are small, flat or odd."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.sampling.quality import pearson, quality, rendered_ssim, ssim, top_overlap


@pytest.fixture
def exact():
    y, x = np.mgrid[0:20, 0:23]
    return (3.0 - 2.0 * np.exp(-((y - 8) ** 2 + (x - 12) ** 2) / 20)).astype(np.float32)


def direct_ssim(one, other, window=7):
    """Wang et al. 2004 with uniform windows and sample variances, window by window."""
    extent = np.ptp(other)
    values = []
    for top in range(one.shape[0] - window + 1):
        for left in range(one.shape[1] - window + 1):
            a, b = (m[top : top + window, left : left + window].astype(float).ravel() for m in (one, other))
            covariance = np.cov(a, b)
            c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
            values.append(
                (2 * a.mean() * b.mean() + c1) * (2 * covariance[0, 1] + c2)
                / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2))
            )  # fmt: skip
    return np.mean(values)


def test_ssim_is_its_definition(exact):
    noisy = exact + np.random.default_rng(0).normal(scale=0.1, size=exact.shape).astype(np.float32)
    assert ssim(noisy, exact) == pytest.approx(direct_ssim(noisy, exact), rel=1e-6)
    assert 0 < ssim(noisy, exact) < 0.95


def test_a_map_is_like_itself(exact):
    found = quality(exact, exact, 3.0)
    assert found.ssim == found.pearson == found.top_overlap == found.rendered_ssim == pytest.approx(1.0)


def test_constant_maps():
    flat = np.full((9, 9), 2.5, np.float32)
    assert ssim(flat, flat) == 1.0
    assert ssim(flat + np.float32(1e-7), flat) == 1.0
    assert ssim(flat + np.float32(0.1), flat) == 0.0
    assert pearson(flat, flat) == 1.0
    assert pearson(flat + 1, flat) == 0.0
    assert rendered_ssim(flat, flat) == pytest.approx(1.0)
    rising = np.arange(81, dtype=np.float32).reshape(9, 9)
    assert ssim(flat, rising) < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (4, 4), (6, 30)])
def test_small_maps(shape):
    exact = np.random.default_rng(1).random(shape, dtype=np.float32)
    assert ssim(exact, exact) == pytest.approx(1.0)
    assert np.isfinite(rendered_ssim(exact, exact))
    if exact.size > 1:
        assert ssim(1 - exact, exact) < 0.9


def test_top_overlap_counts_the_most_sensitive_cells():
    drop = np.zeros((10, 10), np.float32)
    drop[:5, 0] = [5, 4, 3, 2, 1]
    moved = np.roll(drop, 2, axis=0)
    assert top_overlap(drop, drop) == 1.0
    assert top_overlap(moved, drop) == pytest.approx(0.6)
