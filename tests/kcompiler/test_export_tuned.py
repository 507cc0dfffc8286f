"""Tuned plans in a map model: the plan is carried out, and its promise stands on the card."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from map_models import SIZE, compiled, exported, run
from slow_models import slow_model

import kcompiler
from kcompiler.deployment import Deployment, export_map, in_one_model
from kcompiler.runtime.bundle.manifest_file import add_tuned
from kcompiler.runtime.tuning.trials import Goal, Sample
from kcompiler.runtime.tuning.tuner import tune

FILL = 0.0


def smooth_image(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] / 10
    return np.array([np.sin(rng.normal() * y + rng.normal() * x + 6 * rng.random()) for _ in range(3)], np.float32)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A bundle, and what tuning for export and otherwise finds for it."""
    bundle = compiled(tmp_path_factory.mktemp("bundle"), "residual", thresholds=(0.15,))
    explainer = kcompiler.load(bundle, threads=1)
    images = [smooth_image(seed) for seed in range(8)]
    samples = [Sample(image[None], explainer.explain(image, stride=1, fill=FILL)) for image in images]
    found = []
    with slow_model():
        for for_export in (True, False):
            goal = Goal(ssim=0.6, share=0.6, confidence=0.6, stride=1, fill=FILL, for_export=for_export)
            found.append(tune(explainer, samples, goal))
    return bundle, *found


def test_tuning_for_export_finds_a_plan_that_one_model_carries_out(tuned):
    _, for_export, otherwise = tuned
    assert in_one_model(for_export.plan)
    assert {name.split(",")[0] for name, *_ in for_export.evidence.candidates} <= {"drill-down", "every position"}
    assert any(name.startswith("kriging") for name, *_ in otherwise.evidence.candidates)


def test_a_tuned_plan_is_carried_out_with_its_promise(tuned, tmp_path):
    bundle, for_export, _ = tuned
    bundle = Path(shutil.copytree(bundle, tmp_path / "model.kc"))
    add_tuned(bundle, for_export)
    opened, card, explainer = exported(bundle, stride=1, quality=0.6)
    assert card.tuned == for_export
    assert card.variant == for_export.plan.variant
    assert "SSIM 0.6" in (tmp_path / "out" / "card.txt").read_text()
    image = smooth_image(100)[None]
    expected = explainer.explain(image, stride=1, fill=FILL, quality=0.6)
    known = None if card.drill_down is None else np.full(expected.scores.shape, np.nan, np.float32)
    found = run(opened, image, batches=(0, len(card.batches)), fill=(FILL,) * 3, known=known)
    np.testing.assert_allclose(found["map"], expected.scores, rtol=0, atol=1e-5 * np.ptp(expected.scores))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 1, "quality": 0.6}, "for-export"),
        ({"stride": 1, "quality": 0.99}, "run 'kcompiler tune'"),
        ({"stride": 2, "quality": 0.6}, "run 'kcompiler tune'"),
        ({"stride": (1, 2), "quality": 0.6}, "one stride"),
        ({"stride": 1, "quality": 0.6, "variant": "tau0.15"}, "leave those out"),
        ({"stride": 1, "quality": 0.6, "drill_down": (2, 0.5)}, "leave those out"),
    ],
)
def test_plans_that_do_not_fit_are_refused(tuned, tmp_path, settings, message):
    """The bundle has a plan that chooses positions by kriging."""
    bundle, for_export, _ = tuned
    shutil.copytree(bundle, tmp_path / "model.kc")
    kriging = kcompiler.SamplingPlan(step=4, share=0.5)
    add_tuned(tmp_path / "model.kc", for_export.model_copy(update={"plan": kriging}))
    with pytest.raises(kcompiler.UsageError, match=message):
        export_map(tmp_path / "model.kc", tmp_path / "out", Deployment(**settings))
    assert not (tmp_path / "out").exists()
