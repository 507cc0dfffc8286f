"""Drill-down in a map model: the positions of the Python driver's drill-down, and its map."""

from __future__ import annotations

import numpy as np
import pytest
from map_models import FILL, SIZE, compiled, exported, run

import kcompiler
from kcompiler.deployment import Deployment, export_map
from kcompiler.runtime.deployed import Card
from kcompiler.runtime.measuring.check import random_image


def nothing(card: Card) -> np.ndarray:
    return np.full((len(card.ys), len(card.xs)), np.nan, np.float32)


@pytest.mark.parametrize("network", ["residual", "softmax", "concat"])
@pytest.mark.parametrize(("step", "share"), [(2, 0.25), (3, 0.5), (4, 0.1), (5, 0.9), (40, 0.5)])
def test_the_drivers_positions_are_evaluated(tmp_path, network, step, share):
    opened, card, explainer = exported(compiled(tmp_path, network), stride=1, drill_down=(step, share))
    plan = kcompiler.SamplingPlan(method="drill-down", step=step, share=share)
    for seed in range(5):
        image = random_image((3, *SIZE), seed)
        for target in (None, 2):
            expected = explainer.explain(image, stride=1, fill=FILL, target=target, quality=plan)
            wanted = -1 if target is None else target
            found = run(opened, image, wanted, (0, len(card.batches)), known=nothing(card))
            np.testing.assert_array_equal(np.isfinite(found["evaluated"]), expected.sampled)
            allowed = 1e-5 * np.ptp(expected.scores)
            np.testing.assert_allclose(found["map"], expected.scores, rtol=0, atol=allowed)
            np.testing.assert_array_equal(found["evaluated"][expected.sampled], found["map"][expected.sampled])
            drop = np.float32(expected.unoccluded) - expected.upsample()
            np.testing.assert_allclose(found["drop"], drop, rtol=1e-4, atol=1e-4 * np.abs(drop).max())


def test_calls_share_out_both_rounds(tmp_path):
    opened, card, _ = exported(compiled(tmp_path, "residual"), stride=1, drill_down=(3, 0.6))
    coarse, count = card.drill_down.coarse_batches, len(card.batches)
    assert 1 < coarse < count - 1
    image = random_image((3, *SIZE), 1)
    whole = run(opened, image, batches=(0, count), known=nothing(card))
    known = nothing(card)
    for batches in (range(coarse), range(coarse, count)):
        shares = [run(opened, image, batches=(batch, 1), known=known)["evaluated"] for batch in batches]
        for share, batch in zip(shares, batches, strict=True):
            fresh = np.isfinite(share) & ~np.isfinite(known)
            assert fresh.sum() <= card.batches[batch]
        known = np.where(np.isfinite(known), known, np.nan)
        for share in shares:
            known = np.where(np.isfinite(share), share, known)
    np.testing.assert_array_equal(known, whole["evaluated"])
    put_together = run(opened, image, batches=(count, 0), known=known)
    for name in ("map", "drop", "evaluated"):
        np.testing.assert_array_equal(put_together[name], whole[name])


def test_refining_waits_for_all_coarse_scores(tmp_path):
    opened, card, _ = exported(compiled(tmp_path, "residual"), stride=1, drill_down=(3, 0.6))
    coarse = card.drill_down.coarse_batches
    image = random_image((3, *SIZE), 1)
    some = run(opened, image, batches=(1, len(card.batches) - 1), known=nothing(card))
    assert np.isfinite(some["evaluated"]).sum() == sum(card.batches[1:coarse])
    assert np.isnan(some["map"]).any()


def test_ties_are_refined_in_the_drivers_order(tmp_path):
    """A constant image covered by itself: every drop is 0, so that the order of the cells decides alone."""
    opened, card, explainer = exported(compiled(tmp_path, "residual"), stride=2, drill_down=(3, 0.4))
    image = np.full((1, 3, *SIZE), 0.5, np.float32)
    plan = kcompiler.SamplingPlan(method="drill-down", step=3, share=0.4)
    expected = explainer.explain(image, stride=2, fill=0.5, quality=plan)
    found = run(opened, image, batches=(0, len(card.batches)), fill=(0.5, 0.5, 0.5), known=nothing(card))
    assert np.ptp(expected.scores) == 0, "nothing changes, so all scores tie"
    np.testing.assert_array_equal(np.isfinite(found["evaluated"]), expected.sampled)


def test_the_card_tells_what_is_approximate(tmp_path):
    bundle = compiled(tmp_path, "residual", (64, 60), thresholds=(0.1,))
    export_map(bundle, tmp_path / "out", Deployment(stride=2, drill_down=(4, 0.25), variant="tau0.1"))
    text = (tmp_path / "out" / "card.txt").read_text()
    assert "variant tau0.1" in text
    assert "25% of these" in text


@pytest.mark.parametrize("drill_down", [(0, 0.5), (4, 0.0), (4, 1.0), (4, -1.0), (4, float("nan"))])
def test_drill_downs_out_of_range_are_refused(tmp_path, drill_down):
    with pytest.raises(kcompiler.UsageError, match="drill-down"):
        export_map(compiled(tmp_path, "softmax"), tmp_path / "out", Deployment(drill_down=drill_down))
    assert not (tmp_path / "out").exists()
