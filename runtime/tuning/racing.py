"""Racing: families of plans run on ever more images, and those that fall behind run no further.

Which variants are worth it at all is decided before, by what a round of positions takes them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.manifest import Variant
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.tuning.simulation import Family
from kcompiler.runtime.tuning.trials import Costs, Goal, Sample, Tell, Trial, try_family

HEAT = 2
"""Images between two decisions."""
BEHIND = 1.25
"""A family whose plan takes this many times as long as the fastest one's is out."""
WORTHWHILE = 0.95
"""A variant that approximates more must take this share of the time, or less, of every one that approximates less."""
TIMED_COUNTS = (8, 64, 128)
TIMED_ROUNDS = 3


def measured_costs(
    engines: Mapping[str, Engine], images: Sequence[FloatArray], positions: IntArray, goal: Goal
) -> dict[str, Costs]:
    """Times baseline passes and rounds of scattered positions; medians. Engines take turns, so that all meet the same noise."""
    scattered = np.random.default_rng(0).permutation(positions)
    counts = [count for count in TIMED_COUNTS if count < len(scattered)] or [1]
    once: dict[str, list[float]] = {name: [] for name in engines}
    rounds: dict[str, list[list[float]]] = {name: [] for name in engines}
    for number in range(TIMED_ROUNDS + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            baseline = engine.baseline(images[number % len(images)], goal.fill, len(scattered))
            engine.unoccluded(baseline)
            times = [start, time.perf_counter()]
            for count in counts:
                engine.evaluate_all(baseline, scattered[:count])
                times.append(time.perf_counter())
            first, *others = np.diff(times).tolist()
            once[name].append(first)
            rounds[name].append(others)
    sizes = np.array([0, *counts])
    return {
        name: Costs(
            statistics.median(once[name][1:]),  # the first round is for warming up
            sizes,
            np.array([0.0, *np.maximum.accumulate(np.median(np.array(rounds[name][1:]), axis=0))]),
        )
        for name in engines
    }


def worthwhile(variants: Sequence[Variant], costs: Mapping[str, Costs]) -> list[str]:
    """Names of the approximate variants that take less time than every one that approximates no more than they do."""
    count = TIMED_COUNTS[1]

    def pays(variant: Variant) -> bool:
        limit = min(costs[one.name].of_round(count) for one in variants if one is not variant and milder(one, variant))
        return costs[variant.name].of_round(count) <= WORTHWHILE * limit

    return [variant.name for variant in variants[1:] if pays(variant)]


def milder(one: Variant, other: Variant) -> bool:
    """Whether ``one`` approximates nothing that ``other`` does not approximate as much: the exact variant is milder than all."""
    nodes = {*one.node_thresholds, *other.node_thresholds}
    thresholds = [(one.threshold, other.threshold)]
    thresholds += [(one.node_thresholds.get(n, one.threshold), other.node_thresholds.get(n, other.threshold)) for n in nodes]
    return (
        all(mild >= strong for mild, strong in thresholds)
        and one.integers <= other.integers
        and one.frozen_gates <= other.frozen_gates
    )


def race(
    explainer: Explainer,
    families: Sequence[Family],
    samples: Mapping[int, Sample],
    goal: Goal,
    costs: Mapping[str, Costs],
    tell: Tell,
) -> list[Trial]:
    """Trials of ``families``, the best of them on all ``samples`` (by number), the others on as many as it took to see that."""
    running = [Trial(family, {}, costs[family.variant]) for family in families]
    out: list[Trial] = []
    numbers = list(samples)
    for start in range(0, len(numbers), HEAT):
        heat = {number: samples[number] for number in numbers[start : start + HEAT]}
        running = [trial.joined(try_family(explainer, trial.family, heat, goal, trial.costs, tell)) for trial in running]
        seconds = [_seconds(trial, goal) for trial in running]
        ahead = [one <= BEHIND * min(seconds) for one in seconds]
        out += [trial for trial, stays in zip(running, ahead, strict=True) if not stays]
        running = [trial for trial, stays in zip(running, ahead, strict=True) if stays]
    return running + out


def _seconds(trial: Trial, goal: Goal) -> float:
    """Of the fastest plan that keeps the goal on the images so far; infinite if none does."""
    images = list(trial.outcomes)
    number = trial.most_careless(goal, images)
    return np.inf if number is None else trial.seconds(number, images)
