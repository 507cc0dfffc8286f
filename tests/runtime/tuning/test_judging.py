"""Judging: what is promised holds on images that had no part in it; what serves is found where the fastest family does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import kcompiler
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.tuning.judging import CHOOSING, UNPROMISED, fastest, judged, promised, split
from kcompiler.runtime.tuning.promise import images_needed
from kcompiler.runtime.tuning.simulation import Family, Outcome, outcomes, recorded
from kcompiler.runtime.tuning.trials import EXPECTED, Costs, Goal, Trial, families, from_most_careful, kriging
from models.demo_model import DEMO_FOLDER, MODEL, PREPROCESSING
from models.demo_pictures import picture

FREE = Costs(0.0, np.array([0, 8, 64]), np.array([0.0, 0.01, 0.06]))
PICTURES = 240
CALIBRATION = 62
SPLITS = 100


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


@pytest.mark.slow
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


def outcome(ssim, seconds=0.1):
    return Outcome((8,), seconds, ssim, np.zeros((1, 1), np.float32), np.ones((1, 1), np.bool_))


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


BEGINS = 8


@pytest.fixture
def raced():
    """Two families on six images, that are cheap and dear; the cheap one began late."""
    late = kriging("tau0.5", 6, 0.4, EXPECTED[BEGINS:])
    safe = kriging("exact", 6, 0.4)
    cheap = Trial(late, {image: [outcome(0.95, 0.1)] * len(late.plans) for image in range(6)}, FREE)
    return [cheap, Trial(safe, {image: [outcome(0.95, 0.3)] * len(safe.plans) for image in range(6)}, FREE)]


def runs(cheap_until, safe_until, asked):
    """Outcomes on images that judge: families keep the goal up to an expected SSIM; more careful plans take longer."""

    def run(family, costs, numbers):
        asked.append((family, list(numbers)))
        until, seconds = (safe_until, 0.3) if family.variant == "exact" else (cheap_until, 0.1)
        found = [outcome(0.95 if one.expected_ssim >= until else 0.5, seconds + one.expected_ssim - 0.5) for one in family.plans]
        return Trial(family, dict.fromkeys(numbers, found), costs)

    return run


@pytest.mark.parametrize(
    ("cheap_until", "safe_until", "variant", "expected", "judgings"),
    [
        (EXPECTED[BEGINS + 2], 0.5, "tau0.5", EXPECTED[BEGINS + 2], 1),  # it serves as it raced
        (0.95, 0.95, "tau0.5", 0.95, 3),  # more careful plans do, faster than exact evaluation
        (0.98, 0.6, "exact", 0.6, 3),  # slower than that
        (1.0, 0.6, "exact", 0.6, 3),  # no plan of it
        (1.0, 1.0, "exact", 1.0, 3),  # no plan at all
    ],
)
def test_where_the_fastest_family_does_not_serve_others_have_their_chance(
    raced, cheap_until, safe_until, variant, expected, judgings
):
    asked = []
    chosen = judged(raced, Goal(), (range(6), range(6, 14)), np.inf, runs(cheap_until, safe_until, asked))
    assert (chosen.plan.variant, chosen.plan.expected_ssim) == (variant, expected)
    assert len(asked) == judgings
    assert chosen.promised == (chosen.plan == EVERYTHING)


def test_a_promise_is_sought_of_one_family_from_its_most_careful_plan_on(raced):
    second, asked = range(6, 6 + images_needed(0.9, 0.95)), []
    chosen = judged(raced, Goal(), (range(6), second), np.inf, runs(0.95, 0.5, asked))
    assert (chosen.plan.variant, chosen.plan.expected_ssim, chosen.promised) == ("tau0.5", 0.95, True)
    assert [family.plans for family, _ in asked] == [kriging("tau0.5", 6, 0.4).plans]
    chosen = judged(raced, Goal(), (range(6), second), np.inf, runs(1.0, 0.5, asked))
    assert chosen.plan == EVERYTHING, "a second family would be a second chance"


def test_families_from_their_most_careful_plan_on():
    for family in families():
        assert from_most_careful(family) == family
    assert from_most_careful(kriging("tau0.5", 8, 0.3, EXPECTED[5:])) == kriging("tau0.5", 8, 0.3)
