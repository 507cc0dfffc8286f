"""Tuning: what is promised holds on images that had no part in it; evidence and plans land in the bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from networks import save

import kcompiler
from kcompiler.runtime import racing
from kcompiler.runtime.heatmap import HeatMap
from kcompiler.runtime.manifest import add_tuned, read_manifest
from kcompiler.runtime.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.promise import images_needed
from kcompiler.runtime.simulation import Family, Outcome, outcomes, recorded
from kcompiler.runtime.trials import Costs, Goal, Sample, Trial, families
from kcompiler.runtime.tuner import CHOOSING, UNPROMISED, check_images, fastest, promised, split, tune
from models.demo_model import DEMO_FOLDER, MODEL, PREPROCESSING
from models.demo_pictures import picture

FREE = Costs(0.0, np.array([0, 8, 64]), np.array([0.0, 0.01, 0.06]))
PICTURES = 240
CALIBRATION = 62
SPLITS = 100
SHAPE = (3, 40, 44)


@pytest.fixture(scope="module")
def demo_maps():
    """Exact maps of the demo classifier on unseen pictures of all three labels."""
    explainer = kcompiler.load(kcompiler.compile(DEMO_FOLDER / MODEL, preprocessing=DEMO_FOLDER / PREPROCESSING))
    recipe = explainer.manifest.preprocessing
    inputs = (recipe.to_input(picture(seed, "test").pixels[None]) for seed in range(6000, 6000 + PICTURES))
    return [explainer.explain(one, stride=8) for one in inputs]


def trials(maps, plans):
    """On exact maps, as if choosing positions took no time: the clock must not decide which plan is taken here."""
    timeless = {
        family.name: {n: [replace(one, seconds=0.0) for one in outcomes(family, m, recorded(m))] for n, m in enumerate(maps)}
        for family in plans
    }
    return [Trial(family, timeless[family.name], FREE) for family in plans]


def test_promises_hold_on_unseen_images_over_random_splits(demo_maps):
    """A share of unseen images is itself uncertain where those are few, hence three times as many as judge the plan."""
    goal = Goal(ssim=0.9, share=0.9, confidence=0.95, stride=8)
    plans = [f for f in families() if f.plans[0].step not in (4, 8)]
    plans = [Family(f.name, tuple(replace_step(p) for p in f.plans)) for f in plans]
    found = trials(demo_maps, plans)
    kept, evaluated = [], []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(demo_maps)).tolist()
        calibration, unseen = order[:CALIBRATION], order[CALIBRATION:]
        first, second = ([calibration[number] for number in part] for part in split(CALIBRATION, goal))
        chosen = promised(fastest(found, goal, first), goal, second)
        assert chosen.promised
        if chosen.trial is None:
            kept.append(1.0)
            evaluated.append(1.0)
            continue
        kept.append(chosen.trial.kept(chosen.number, goal, unseen) / len(unseen))
        evaluated.append(chosen.trial.evaluated(chosen.number, unseen) / demo_maps[0].scores.size)
    assert np.mean(np.array(kept) >= goal.share) >= 0.95, kept
    assert np.mean(evaluated) < 0.6, "and yet something is saved"


def replace_step(plan: SamplingPlan) -> SamplingPlan:
    """For a grid of stride 8: half as many cells a side between coarse ones."""
    return plan.model_copy(
        update={
            "step": 3 if plan.method == "kriging" else 2,
            "share": max(plan.share, 0.7) if plan.method == "kriging" else plan.share,
        }
    )


def test_outcomes_of_one_run_are_those_of_each_plan_alone(demo_maps):
    plans = tuple(SamplingPlan(step=3, share=0.5, expected_ssim=expected) for expected in (0.95, 0.85, 0.7))
    exact = demo_maps[0]
    together = outcomes(Family("kriging", plans), exact, recorded(exact))
    alone = [outcomes(Family("kriging", (plan,)), exact, recorded(exact))[0] for plan in plans]
    assert [one.rounds for one in together] == [one.rounds for one in alone]
    assert [one.ssim for one in together] == [one.ssim for one in alone]


def test_too_few_images_are_tuned_on_but_not_promised(demo_maps):
    goal = Goal(stride=8)
    plans = [Family("kriging", tuple(SamplingPlan(step=3, share=0.8, expected_ssim=e) for e in (0.99, 0.97, 0.9)))]
    found = trials(demo_maps[:20], plans)
    chosen = promised(fastest(found, goal, range(10)), goal, range(10, 20))
    assert not chosen.promised
    assert chosen.trial is not None
    assert images_needed(goal.share, goal.confidence) > 10


@pytest.mark.parametrize(
    ("bad", "judges", "number"),
    [
        ([], range(12), 2),  # 12 of 12 are what 0.9 of 13 takes
        ([11], range(5), 1),  # 11 of 12 are not, though 0.9 of 12 takes no more
        ([0], range(5), 1),  # 4 of the 5 that judge
        ([], range(8), 2),
    ],
)
def test_where_nothing_can_be_promised_a_plan_must_serve_those_that_judge_and_be_expected_to_serve_the_next(bad, judges, number):
    family = Family("three", tuple(SamplingPlan(expected_ssim=one) for one in (0.98, 0.95, 0.8)))

    def outcome(ssim):
        return Outcome((8,), 0.1, ssim, np.zeros((1, 1), np.float32), np.ones((1, 1), np.bool_))

    good, other = [outcome(one) for one in (0.99, 0.97, 0.95)], [outcome(one) for one in (0.99, 0.97, 0.5)]
    trial = Trial(family, {image: other if image in bad else good for image in range(12)}, FREE)
    chosen = promised((trial, 2), Goal(ssim=0.9, share=0.9), judges)
    assert (chosen.number, chosen.promised) == (number, False)
    few = Trial(family, dict.fromkeys(range(6), good), FREE)
    assert promised((few, 2), Goal(ssim=0.9, share=0.9), range(3)).number == 1, "six successes in six are not 0.9 of seven"


def test_no_plan_that_serves_means_exact(demo_maps):
    plans = [Family("drill-down", tuple(SamplingPlan(method="drill-down", step=4, share=r) for r in (0.1, 0.05)))]
    assert fastest(trials(demo_maps[:12], plans), Goal(ssim=0.999, stride=8), range(6)) is None
    assert fastest(trials(demo_maps[:12], plans), Goal(ssim=0.01, stride=8), range(6), within=0.0) is None
    assert promised(None, Goal(), range(6)).plan == EVERYTHING


def test_a_few_random_images_choose_and_the_others_judge():
    first, second = split(40, Goal())
    assert (len(first), len(second)) == (CHOOSING, 40 - CHOOSING)
    assert sorted([*first, *second]) == list(range(40))
    assert (first, second) == split(40, Goal()), "the same again"
    assert sorted(first) != list(range(CHOOSING))
    assert [len(part) for part in split(2, Goal())] == [1, 1]


def test_where_nothing_can_be_promised_few_images_judge():
    needed = images_needed(0.9, 0.95)
    assert len(split(CHOOSING + needed, Goal())[1]) == needed
    first, second = split(CHOOSING + needed - 1, Goal())
    assert (len(first), len(second)) == (CHOOSING, UNPROMISED)
    assert not {*first} & {*second}


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


def slow_sample(explainer, seed):
    """Its exact map took so long that whatever a plan takes is less."""
    image = explainer.check_image(smooth_image(seed))
    return Sample(image, replace(explainer.explain(image, stride=1, target=1), seconds=1e6))


@pytest.fixture(scope="module")
def tuned(bundle):
    """What tuning the bundle found, and what it said on the way."""
    explainer = kcompiler.load(bundle, threads=1)
    goal = Goal(ssim=0.8, share=0.6, confidence=0.6, stride=1, target=1)
    samples = [slow_sample(explainer, seed) for seed in range(8)]
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(racing, "WORTHWHILE", np.inf)  # on so small a network nothing is faster for sure
        return tune(explainer, samples, goal, lambda *what: told.append(what)), told


def test_tuning_tries_all_variants_and_keeps_its_evidence(tuned):
    found, told = tuned
    assert {name for name, *_ in told} >= {"exact maps", "timing the plan"}
    assert any("tau0.15" in name for name, *_ in told)
    assert found.evidence.given == found.evidence.images == 8
    assert found.evidence.held_out == len(found.evidence.ssim) == 4
    assert not found.plan.everything


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
    samples = Lazy([slow_sample(explainer, number) if number in (*first, *second) else None for number in range(20)])
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
