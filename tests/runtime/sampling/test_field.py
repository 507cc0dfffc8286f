"""The sequentially conditioned field against kriging in one go."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.sampling import field as module
from kcompiler.runtime.sampling.field import NUGGET, Field, correlation


def in_one_go(shape, lengths, cells, values, level):
    """Mean and variance of every cell: simple kriging, with all covariances at once."""
    places = np.stack(np.divmod(np.arange(shape[0] * shape[1]), shape[1]), axis=1) / np.array(lengths)
    distance = np.linalg.norm(places[:, None] - places[None, :], axis=2)
    covariance = correlation(distance)
    among = covariance[np.ix_(cells, cells)] + NUGGET * np.eye(len(cells))
    weights = np.linalg.solve(among, covariance[cells])
    return level + weights.T @ (values - level), 1 - np.einsum("ij,ij->j", covariance[cells], weights)


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    return rng.permutation(17 * 23)[:60], rng.normal(size=60)


def test_sequential_conditioning_is_kriging(measured):
    cells, values = measured
    field = Field((17, 23), (2.0, 3.0))
    field.start_from(0.7)
    for cell, value in zip(cells, values, strict=True):
        field.plan(int(cell))
        field.measure(value)
    mean, variance = in_one_go((17, 23), (2.0, 3.0), cells, values, 0.7)
    np.testing.assert_allclose(field.mean, mean, atol=1e-3)
    np.testing.assert_allclose(field.variance, variance, atol=1e-3)


def test_planning_ahead_changes_no_mean_and_the_same_variance(measured):
    cells, values = measured
    ahead, by_one = Field((17, 23), (2.0, 2.0)), Field((17, 23), (2.0, 2.0))
    for cell in cells:
        ahead.plan(int(cell))
    for cell, value in zip(cells, values, strict=True):
        ahead.measure(value)
        by_one.plan(int(cell))
        by_one.measure(value)
    np.testing.assert_allclose(ahead.mean, by_one.mean, atol=1e-12)
    np.testing.assert_allclose(ahead.variance, by_one.variance, atol=1e-12)
    np.testing.assert_allclose(ahead.surprises, by_one.surprises)


def test_surprises_are_one_on_average_for_a_field_of_variance_one():
    rng = np.random.default_rng(1)
    places = np.stack(np.divmod(np.arange(400), 20), axis=1) / 2.0
    covariance = correlation(np.linalg.norm(places[:, None] - places[None, :], axis=2)) + NUGGET * np.eye(400)
    root = np.linalg.cholesky(covariance)
    found = []
    for _ in range(20):
        values = root @ rng.normal(size=400)
        field = Field((20, 20), (2.0, 2.0))
        for cell in rng.permutation(400)[:80]:
            field.plan(int(cell))
            field.measure(values[cell])
        found.append(np.mean(field.surprises))
    assert np.mean(found) == pytest.approx(1.0, abs=0.1)


def test_tiles_give_what_one_piece_gives(monkeypatch):
    rng = np.random.default_rng(2)
    cells, values = rng.permutation(60 * 50)[:400], rng.normal(size=400)
    whole = Field((60, 50), (1.5, 1.5))
    monkeypatch.setattr(module, "TILE", 16)
    tiled = Field((60, 50), (1.5, 1.5))
    for cell, value in zip(cells, values, strict=True):
        for field in (whole, tiled):
            field.plan(int(cell))
            field.measure(value)
    assert np.abs(whole.mean - tiled.mean).mean() < 0.005
    assert np.abs(whole.mean - tiled.mean).max() < 0.15
    assert np.abs(whole.variance - tiled.variance).max() < 0.01
    assert len(whole.surprises) == len(tiled.surprises) == 400


def test_expected_cells_are_planned_alike_and_so_are_others():
    """Whatever is expected, and when: variances and means are those of planning without it."""
    shape, lengths = (20, 90), (1.5, 2.0)  # two tiles
    order = np.random.default_rng(0).permutation(shape[0] * shape[1])[:90]
    plain, told = Field(shape, lengths), Field(shape, lengths)
    for number, cell in enumerate(order):
        if number in (0, 30, 60):
            told.expect(order[number : number + 30 : 2])
        for field in (plain, told):
            field.plan(int(cell))
    for field in (plain, told):
        field.start_from(0.5)
        for cell in order:
            field.measure(float(np.sin(cell)))
    np.testing.assert_allclose(told.variance, plain.variance, rtol=0, atol=1e-5)
    np.testing.assert_allclose(told.mean, plain.mean, rtol=0, atol=1e-4)
