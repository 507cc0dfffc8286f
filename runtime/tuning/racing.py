"""Racing: families of plans run on a growing number of images, and families that fall behind are dropped.

Before the race, variants are selected by the measured time of a round of positions (``measured``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kcompiler.runtime.bundle.variant import Variant
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.tuning.measured import TIMED_COUNTS
from kcompiler.runtime.tuning.simulation import Family
from kcompiler.runtime.tuning.trials import Costs, Goal, Sample, Tell, Trial, try_family

HEAT = 2
"""Images between two decisions."""
BEHIND = 1.25
"""A family is dropped if its best plan takes more than this times the fastest family's."""
WORTHWHILE = 0.95
"""A variant must take at most this share of the time of every variant that approximates less."""


def worthwhile(variants: Sequence[Variant], costs: Mapping[str, Costs]) -> list[str]:
    """Names of the approximate variants that take less time than every variant that approximates no more than they do."""
    count = TIMED_COUNTS[1]

    def pays(variant: Variant) -> bool:
        limit = min(costs[other.name].of_round(count) for other in variants if other is not variant and milder(other, variant))
        return costs[variant.name].of_round(count) <= WORTHWHILE * limit

    return [variant.name for variant in variants[1:] if pays(variant)]


def milder(variant: Variant, other: Variant) -> bool:
    """Whether ``variant`` approximates in no respect more than ``other``; the exact variant is milder than all."""
    nodes = {*variant.node_thresholds, *other.node_thresholds}
    thresholds = [(variant.threshold, other.threshold)]
    thresholds += [
        (variant.node_thresholds.get(n, variant.threshold), other.node_thresholds.get(n, other.threshold)) for n in nodes
    ]
    return (
        all(mild >= strong for mild, strong in thresholds)
        and variant.integers <= other.integers
        and variant.frozen_gates <= other.frozen_gates
        and variant.tf32 <= other.tf32
    )


def race(
    explainer: Explainer,
    families: Sequence[Family],
    samples: Mapping[int, Sample],
    goal: Goal,
    costs: Mapping[str, Costs],
    tell: Tell,
) -> list[Trial]:
    """Runs ``families`` on ``samples`` (by image number): the best on all, others until they are dropped. Returns all trials."""
    running = [Trial(family, {}, costs[family.variant]) for family in families]
    dropped: list[Trial] = []
    numbers = list(samples)
    for start in range(0, len(numbers), HEAT):
        heat = {number: samples[number] for number in numbers[start : start + HEAT]}
        running = [trial.joined(try_family(explainer, trial.family, heat, goal, trial.costs, tell)) for trial in running]
        seconds = [_seconds(trial, goal) for trial in running]
        ahead = [predicted <= BEHIND * min(seconds) for predicted in seconds]
        dropped += [trial for trial, stays in zip(running, ahead, strict=True) if not stays]
        running = [trial for trial, stays in zip(running, ahead, strict=True) if stays]
    return running + dropped


def _seconds(trial: Trial, goal: Goal) -> float:
    """Predicted seconds of the least careful plan that meets the goal on the images so far; infinite if none does."""
    images = list(trial.outcomes)
    number = trial.most_careless(goal, images)
    return np.inf if number is None else trial.seconds(number, images)
