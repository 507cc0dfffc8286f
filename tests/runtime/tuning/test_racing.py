"""Racing: which families run on, and which variants run at all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.tuning import racing
from kcompiler.runtime.tuning.racing import HEAT, milder, race, worthwhile
from kcompiler.runtime.tuning.simulation import Family, Outcome
from kcompiler.runtime.tuning.trials import Costs, Goal, Trial


def variant(name, threshold=1.0, integers=False, gates=0, tf32=False, **node_thresholds):
    return SimpleNamespace(
        name=name, threshold=threshold, integers=integers, frozen_gates=gates, tf32=tf32, node_thresholds=node_thresholds
    )


def taking(seconds):
    return Costs(0.0, np.array([0, 64]), np.array([0.0, seconds]))


EXACT = variant("exact")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (EXACT, variant("a", 0.5), True),
        (variant("a", 0.5), EXACT, False),
        (variant("a", 0.6), variant("b", 0.5, integers=True), True),
        (variant("a", 0.6, integers=True), variant("b", 0.5), False),
        (variant("a", 0.5, first=0.8), variant("b", 0.5), True),
        (variant("a", 0.5, first=0.4), variant("b", 0.5), False),
        (variant("a", 0.5), variant("b", 0.6, first=0.4), False),
        (variant("a", 0.5, gates=3), variant("b", 0.4), False),
        (EXACT, variant("b", gates=3), True),
        (EXACT, variant("b", tf32=True), True),
        (variant("a", 0.6, tf32=True), variant("b", 0.5), False),
    ],
)
def test_milder_variants_approximate_nothing_more(one, other, expected):
    assert milder(one, other) is expected


def test_variants_that_approximate_more_must_take_less():
    variants = [EXACT, variant("0.6", 0.6), variant("0.5", 0.5), variant("int8", 1.0, True), variant("0.5 int8", 0.5, True)]
    costs = {"exact": 1.0, "0.6": 0.97, "0.5": 0.6, "int8": 0.7, "0.5 int8": 0.59}
    assert worthwhile(variants, {name: taking(one) for name, one in costs.items()}) == ["0.5", "int8"]


def test_families_that_fall_behind_run_no_further(monkeypatch):
    """The slow one is out after the first heat, the one that fails an image after the second."""
    ran = []

    def try_family(explainer, family, samples, goal, costs, tell):
        ran.extend((family.name, number) for number in samples)
        ssim = {number: 0.5 if family.name == "fails" and number >= HEAT else 0.95 for number in samples}
        rounds = {"slow": (200,), "fast": (64,), "fails": (60,)}[family.name]
        flat = np.zeros((1, 1), np.float32)
        return Trial(family, {n: [Outcome(rounds, 0.0, ssim[n], flat, flat > 0)] for n in samples}, costs)

    monkeypatch.setattr(racing, "try_family", try_family)
    families = [Family(name, (SamplingPlan(),)) for name in ("slow", "fast", "fails")]
    costs = {"exact": Costs(0.0, np.array([0, 8, 64]), np.array([0.0, 0.1, 1.0]))}
    trials = race(None, families, dict.fromkeys(range(3 * HEAT)), Goal(), costs, lambda *_: None)
    assert {name: sum(one == name for one, _ in ran) for name in ("slow", "fast", "fails")} == {
        "slow": HEAT, "fast": 3 * HEAT, "fails": 2 * HEAT
    }  # fmt: skip
    assert [trial.family.name for trial in trials] == ["fast", "slow", "fails"]
    assert [trial.ran_on(range(3 * HEAT)) for trial in trials] == [True, False, False]
