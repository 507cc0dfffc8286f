"""Samplers on maps made by hand: what they ask for, what they draw, and that nothing is left out where nothing may be."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.bundle.plans import ANYTIME, EVERYTHING, SamplingPlan
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.sampling import sampling
from kcompiler.runtime.sampling.drill_down import coarse_cells
from kcompiler.runtime.sampling.quality import ssim
from kcompiler.runtime.sampling.sampling import make_sampler

GRID = make_grid((128, 140), (16, 16), 4)
PATCH = (16, 16)


def bump(width=5.0, level=2.0):
    y, x = np.mgrid[0 : GRID.shape[0], 0 : GRID.shape[1]]
    return (level - 3 * np.exp(-((y - 9) ** 2 + (x - 20) ** 2) / width**2)).astype(np.float32)


def run(plan, scores, unoccluded=2.0, batches=1):
    """The sampler after its plan, told in ``batches`` a round in another order than asked, and the cells it asked for."""
    sampler, asked = make_sampler(plan, GRID, PATCH, unoccluded), []
    while len(cells := sampler.next()):
        asked.append(cells)
        for part in np.array_split(np.sort(cells)[::-1], batches):
            sampler.tell(part, scores.ravel()[part])
    return sampler, np.concatenate(asked)


PLANS = {
    "exact": EVERYTHING,
    "anytime": ANYTIME,
    "drill-down": SamplingPlan(method="drill-down", step=3, share=0.3),
    "drill-down, all": SamplingPlan(method="drill-down", step=3),
    "kriging": SamplingPlan(share=0.3, expected_ssim=0.95),
    "kriging, share 1": SamplingPlan(share=1.0, expected_ssim=0.9),
}


@pytest.mark.parametrize("name", PLANS)
def test_no_cell_is_asked_for_twice_and_no_more_than_said(name):
    sampler, asked = run(PLANS[name], bump(), batches=3)
    assert len(set(asked.tolist())) == len(asked) <= sampler.most
    assert asked.min() >= 0
    assert asked.max() < GRID.shape[0] * GRID.shape[1]
    surface = sampler.surface()
    assert surface.shape == GRID.shape
    assert surface.dtype == np.float32
    np.testing.assert_array_equal(surface.ravel()[asked], bump().ravel()[asked])


@pytest.mark.parametrize("name", ["exact", "anytime", "drill-down, all"])
def test_share_one_asks_for_everything(name):
    sampler, asked = run(PLANS[name], bump())
    assert sorted(asked.tolist()) == list(range(GRID.shape[0] * GRID.shape[1]))
    np.testing.assert_array_equal(sampler.surface(), bump())
    if name != "anytime":
        assert asked.tolist() == sorted(asked.tolist()), "in the order of the exact map"


def test_kriging_measures_where_the_map_moves():
    _, asked = run(SamplingPlan(step=6, expected_ssim=0.95, share=0.5), bump(3.0))
    refined = np.setdiff1d(asked, coarse_cells(GRID.shape, 6))
    y, x = np.divmod(refined, GRID.shape[1])
    near = np.hypot(*np.mgrid[-9 : GRID.shape[0] - 9, -20 : GRID.shape[1] - 20]) < 6
    inside = near[y, x].sum()
    assert inside / near.sum() > 1.5 * (len(refined) - inside) / (~near).sum(), "denser than elsewhere"


def test_kriging_with_few_positions_is_closer_than_drill_down_with_more():
    rng = np.random.default_rng(0)
    scores = bump(4.0) + 0.02 * rng.normal(size=GRID.shape).astype(np.float32)
    krige, few = run(SamplingPlan(step=5, share=0.15), scores)
    drill, more = run(SamplingPlan(method="drill-down", step=4, share=0.2), scores)
    assert len(few) < len(more)
    assert ssim(krige.surface(), scores) > ssim(drill.surface(), scores)


def test_more_careful_plans_evaluate_more_and_come_closer():
    found = [run(SamplingPlan(expected_ssim=expected, share=0.6), bump(3.0)) for expected in (0.7, 0.9, 0.99)]
    counts = [len(asked) for _, asked in found]
    qualities = [ssim(sampler.surface(), bump(3.0)) for sampler, _ in found]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    assert qualities[-1] > 0.97
    assert qualities[-1] >= qualities[0]


def test_a_finding_does_not_make_calm_parts_far_away_restless():
    """With four times the prior that the whole map has now, the loss would be expected to be 2.4 times what it is."""
    y, x = np.mgrid[0 : GRID.shape[0], 0 : GRID.shape[1]]
    scores = (0.02 * np.sin(1.1 * x + 0.6 * y) - 3 * np.exp(-((y - 7) ** 2 + (x - 8) ** 2) / 4)).astype(np.float32)
    sampler, _ = run(SamplingPlan(step=6, share=0.2, expected_ssim=0.999), scores)
    assert 1 - sampler.expected_ssim() < 1.8 * (1 - ssim(sampler.surface(), scores))


def test_drill_down_is_the_papers():
    """Coarse cells hold for what is nearest; the most sensitive share is refined cell by cell."""
    scores = bump()
    plan = SamplingPlan(method="drill-down", step=4, share=0.1)
    sampler, asked = run(plan, scores)
    coarse = coarse_cells(GRID.shape, 4)
    assert set(coarse) <= set(asked.tolist())
    most_sensitive = coarse[np.argsort(scores.ravel()[coarse])[: round(0.1 * len(coarse))]]
    for cell in most_sensitive:
        y, x = divmod(int(cell), GRID.shape[1])
        if 1 <= y < GRID.shape[0] - 2 and 1 <= x < GRID.shape[1] - 2:
            assert {(y + dy) * GRID.shape[1] + x + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)} <= set(asked.tolist())
    held = np.setdiff1d(np.arange(scores.size), asked)
    assert set(sampler.surface().ravel()[held]) <= set(scores.ravel()[coarse])


@pytest.mark.parametrize("told", [0, 7, 100])
def test_a_round_cut_short_leaves_the_map_of_what_is_there(told):
    sampler = make_sampler(SamplingPlan(step=4, share=0.5), GRID, PATCH, 2.0)
    cells = sampler.next()[:told]
    sampler.tell(cells, bump().ravel()[cells])
    surface = sampler.surface()
    assert np.isfinite(surface).all()
    np.testing.assert_array_equal(surface.ravel()[cells], bump().ravel()[cells])


def test_flat_maps_end_after_the_coarse_grid():
    flat = np.full(GRID.shape, 1.5, np.float32)
    sampler, asked = run(SamplingPlan(step=4, share=0.5, expected_ssim=0.95), flat)
    assert len(asked) == len(coarse_cells(GRID.shape, 4))
    np.testing.assert_allclose(sampler.surface(), flat, rtol=1e-6)


def test_grids_of_one_cell_and_one_line():
    for image, patch in (((16, 16), (16, 16)), ((16, 80), (16, 16))):
        grid = make_grid(image, patch, 4)
        sampler = make_sampler(SamplingPlan(share=0.9, expected_ssim=0.9), grid, patch, 0.0)
        while len(cells := sampler.next()):
            sampler.tell(cells, np.cos(cells).astype(np.float32))
        assert sampler.surface().shape == grid.shape


def test_the_model_of_the_field_ends_where_it_would_cost_too_much(monkeypatch):
    monkeypatch.setattr(sampling, "MOST_BYTES", 0)
    sampler, asked = run(SamplingPlan(step=8, share=0.4), bump())
    assert len(asked) == sampler.most
    assert ssim(sampler.surface(), bump()) > 0.7


def test_anytime_never_takes_a_flat_coarse_grid_for_the_whole_map():
    scores = np.zeros(GRID.shape, np.float32)
    scores[3, 3] = -1.0
    sampler, asked = run(ANYTIME, scores, unoccluded=0.0)
    assert len(asked) == scores.size
    np.testing.assert_array_equal(sampler.surface(), scores)
