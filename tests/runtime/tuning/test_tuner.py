"""Tuning: what is promised holds on images that had no part in it; evidence and plans land in the bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from networks import save
from slow_models import TIMES, slow_model

import kcompiler
from kcompiler.runtime.bundle.manifest_file import add_tuned, read_manifest
from kcompiler.runtime.bundle.plans import SamplingPlan, Tuned
from kcompiler.runtime.inputs.fills import Veil
from kcompiler.runtime.inputs.images import described_fill
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.sampling.tuned import find_tuned, unlike_tuned
from kcompiler.runtime.tuning.judging import CHOOSING, UNPROMISED, split
from kcompiler.runtime.tuning.simulation import Family, Outcome, outcomes, recorded
from kcompiler.runtime.tuning.trials import Costs, Goal, Sample
from kcompiler.runtime.tuning.tuner import check_images, tune

FREE = Costs(0.0, np.array([0, 8, 64]), np.array([0.0, 0.01, 0.06]))
SHAPE = (3, 40, 44)


def test_costs_grow_with_rounds_and_beyond_what_was_timed():
    outcome = Outcome((64, 32, 200), 0.5, 0.9, np.zeros((1, 1), np.float32), np.ones((1, 1), np.bool_))
    each = (0.06 - 0.01) / 56
    assert FREE.of(outcome) == pytest.approx(0.5 + 0.06 + (0.01 + 24 * each) + 0.06 + 136 * each)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    model = save("residual", folder / "model.onnx", *SHAPE[1:])
    return kcompiler.compile(model, patch=(4, 6), thresholds=[0.15]).save(folder / "model.kc")


def smooth_image(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : SHAPE[1], 0 : SHAPE[2]] / 10
    waves = [np.sin(rng.normal() * y + rng.normal() * x + 6 * rng.random()) for _ in range(3)]
    return np.array(waves, np.float32)


def exact_sample(explainer, seed):
    """Its map says that it took no time at all, which tells nothing of how long one takes now."""
    image = explainer.check_image(smooth_image(seed))
    return Sample(image, replace(explainer.explain(image, stride=1, target=1), seconds=0.0))


@pytest.fixture(scope="module")
def tuned(bundle):
    """What tuning the bundle found, and what it said on the way."""
    explainer = kcompiler.load(bundle, threads=1)
    goal = Goal(ssim=0.8, share=0.6, confidence=0.6, stride=1, target=1)
    samples = [exact_sample(explainer, seed) for seed in range(8)]
    told = []
    with slow_model():
        return tune(explainer, samples, goal, lambda *what: told.append(what)), told


def test_tuning_tries_all_variants_and_keeps_its_evidence(tuned):
    found, told = tuned
    assert {name for name, *_ in told} >= {"exact maps", "exact maps to judge by"}
    assert any("tau0.15" in name for name, *_ in told)
    assert found.evidence.given == found.evidence.images == 8
    assert found.evidence.held_out == len(found.evidence.ssim) == 4
    assert not found.plan.everything
    assert (found.evidence.seconds, found.evidence.exact_seconds) == (TIMES.plan, TIMES.exact)
    raced = {name for name, *_ in found.evidence.candidates}
    assert {name for name, _ in found.evidence.judged} <= raced
    assert all(0 <= kept <= 4 for _, kept in found.evidence.judged)
    assert found.evidence.judged


def test_tuned_plan_lands_in_the_bundle_and_is_used(bundle, tuned, tmp_path):
    found, _ = tuned
    shutil.copytree(bundle, tmp_path / "model.kc")
    add_tuned(tmp_path / "model.kc", found)
    add_tuned(tmp_path / "model.kc", found)
    assert read_manifest(tmp_path / "model.kc").tuned == (found,)
    again = kcompiler.load(tmp_path / "model.kc", threads=1)
    heat_map = again.explain(smooth_image(0), stride=1, target=1, quality=0.8)
    assert heat_map.plan == found.plan
    assert heat_map.evaluated < heat_map.scores.size
    assert again.explain(smooth_image(0), stride=1, target=1, quality=0.5).plan == found.plan
    with pytest.raises(kcompiler.UsageError, match=r"tuned for SSIM 0\.8 of the output at stride 1"):
        again.explain(smooth_image(0), stride=1, quality=0.9)
    with pytest.raises(kcompiler.UsageError, match="at stride 2"):
        again.explain(smooth_image(0), stride=2, quality=0.8)


def test_images_unlike_the_calibration_set_are_said(bundle, tuned, tmp_path):
    """A plan that is too careless for the image, with evidence of images on which it was not."""
    found, _ = tuned
    careless = SamplingPlan(step=8, share=0.02, expected_ssim=0.01)
    evidence = found.evidence.model_copy(update={"spot_error": 1e-3})
    shutil.copytree(bundle, tmp_path / "model.kc")
    add_tuned(tmp_path / "model.kc", found.model_copy(update={"plan": careless, "evidence": evidence}))
    noise = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32) * 5
    (warning,) = kcompiler.load(tmp_path / "model.kc", threads=1).explain(noise, stride=1, target=1, quality=0.8).warnings
    assert "may be unlike them" in warning


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ssim": 0.0}, "ssim is 0.0"),
        ({"ssim": 1.01}, "ssim is 1.01"),
        ({"ssim": float("nan")}, "ssim is nan"),
        ({"share": 1.0}, "share is 1.0"),
        ({"confidence": 0.0}, "confidence is 0.0"),
    ],
)
def test_goals_that_are_none(settings, message):
    with pytest.raises(kcompiler.UsageError, match=message):
        Goal(**settings)


def test_maps_that_are_not_finite_are_not_tuned_on(bundle):
    explainer = kcompiler.load(bundle, threads=1)
    exact = explainer.explain(smooth_image(0), stride=4, target=1)
    broken = replace(exact, scores=np.full_like(exact.scores, np.inf))
    image = explainer.check_image(smooth_image(0))
    with pytest.raises(kcompiler.UsageError, match="calibration image 1 is not finite"):
        tune(explainer, [Sample(image, exact), Sample(image, broken)], Goal(stride=4))
    with pytest.raises(kcompiler.UsageError, match="1 calibration images"):
        tune(explainer, [Sample(image, exact)], Goal(stride=4))


def test_calibration_images_that_are_none(bundle):
    explainer = kcompiler.load(bundle)
    with pytest.raises(kcompiler.UsageError, match="1 calibration images, expected at least 2"):
        check_images(explainer, {"a": smooth_image(0)})
    with pytest.raises(kcompiler.ImageError, match=r"b\.npy: image: has shape"):
        check_images(explainer, {"a": smooth_image(0), "b.npy": smooth_image(1)[:, :20]})
    with pytest.raises(kcompiler.ImageError, match="b: is the same image as a"):
        check_images(explainer, {"a": smooth_image(0), "b": smooth_image(0)})


def test_maps_that_are_read_back_simulate_alike(bundle, tmp_path):
    explainer = kcompiler.load(bundle, threads=1)
    exact = explainer.explain(smooth_image(3), stride=1, target=1)
    exact.save(tmp_path, "exact")
    family = Family("kriging", (SamplingPlan(step=4, share=0.5, expected_ssim=0.9),))
    again = HeatMap.load(tmp_path / "exact.json")
    assert outcomes(family, again, recorded(again))[0].rounds == outcomes(family, exact, recorded(exact))[0].rounds


class Lazy(list):
    """Numbers of the samples that were taken."""

    def __init__(self, samples):
        super().__init__(samples)
        self.taken = []

    def __getitem__(self, number):
        self.taken.append(number)
        return super().__getitem__(number)


def test_samples_are_taken_as_needed_and_while_there_is_time(bundle):
    explainer = kcompiler.load(bundle, threads=1)
    goal = Goal(ssim=0.5, stride=1, target=1)
    first, second = split(20, goal)
    samples = Lazy([exact_sample(explainer, number) if number in (*first, *second) else None for number in range(20)])
    found = tune(explainer, samples, goal)
    assert samples.taken == [*first, *second]
    assert (found.evidence.given, found.evidence.images) == (20, CHOOSING + UNPROMISED)
    assert not found.promised
    samples.taken.clear()
    found = tune(explainer, samples, goal, deadline=0.0)
    assert samples.taken == [first[0], second[0]]
    assert (found.evidence.images, found.evidence.held_out) == (2, 1)


def test_explanations_of_another_kind_than_tuned_for_are_said(bundle, tuned, tmp_path):
    found, _ = tuned
    shutil.copytree(bundle, tmp_path / "model.kc")
    add_tuned(tmp_path / "model.kc", found.model_copy(update={"evidence": found.evidence.model_copy(update={"spot_error": 9.0})}))
    explainer = kcompiler.load(tmp_path / "model.kc", threads=1)
    settings = {"stride": 1, "quality": 0.8}
    assert explainer.explain(smooth_image(1), target=1, **settings).warnings == ()
    (warning,) = explainer.explain(smooth_image(1), target=1, fill=(0.0, 1.0, 0.0), **settings).warnings
    assert "with the fill (0.0, 0.0, 0.0), not (0.0, 1.0, 0.0)" in warning
    (warning,) = explainer.explain(smooth_image(1), target=2, **settings).warnings
    assert "on maps of output 1" in warning
    (warning,) = explainer.explain(smooth_image(1), target=1, region=(0, 0, 30, 30), **settings).warnings
    assert "on whole maps of all channels" in warning


def test_the_plan_tuned_for_what_is_asked_serves(bundle, tuned, tmp_path):
    """Not one that is faster, for another fill or target, or without a promise."""
    found, _ = tuned
    folder = tmp_path / "model.kc"
    shutil.copytree(bundle, folder)
    fast = found.evidence.model_copy(update={"seconds": found.evidence.seconds / 9})
    for number, change in enumerate(
        (
            {"fill": "blur", "evidence": fast},
            {"target": None, "evidence": fast},
            {"ssim": 0.85, "promised": False, "evidence": fast},
        )
    ):
        plan = found.plan.model_copy(update={"step": 20 + number})
        add_tuned(folder, found.model_copy(update={"plan": plan, **change}))
    add_tuned(folder, found.model_copy(update={"promised": True}))
    manifest = read_manifest(folder)
    assert len(manifest.tuned) == 4

    def step(fill, target):
        return find_tuned(manifest, 0.8, 1, "output", fill, target).plan.step

    assert step(found.fill, 1) == found.plan.step
    assert [step("blur", 1), step(found.fill, None)] == [20, 21]


def test_fills_are_told_apart():
    """Pictures by what is in them; objects that nothing tells apart are like no other."""

    class Mine:
        def picture(self, image):
            return image * 0

    pictures = [np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32) for seed in (0, 1)]
    veils = [Veil(np.ones((40, 40), np.float32)) for _ in range(2)]
    veils[1].weights[20, 20] = 0.5  # where an array's own text leaves numbers out
    for one, other in (pictures, veils):
        assert described_fill(one, SHAPE) != described_fill(other, SHAPE)
        assert described_fill(one, SHAPE) == described_fill(one, SHAPE)
    assert described_fill(Mine(), SHAPE) is None
    tuned = Tuned.model_construct(fill=None, target=None)
    assert "with the fill of its own" in unlike_tuned(tuned, None, 0, 0, part=False)[0]
