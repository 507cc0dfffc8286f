"""Times that are compared are measured side by side: of all variants in turn, of the chosen plan and of exact maps in turn.

The time of an exact map is predicted from a sample of its batches. That of a map that was computed before, perhaps while the
machine was busy with something else, is compared with nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inference.spread import spread
from kcompiler.runtime.inputs.fills import apart
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.sampling.tuned import SPOTS
from kcompiler.runtime.tuning.trials import Costs, Goal, Sample, Tell

TIMED_COUNTS = (8, 64, 128)
TIMED_ROUNDS = 3
SAMPLED = 128
"""Positions, about, from which the time of a whole map is predicted."""
TIMED_IMAGES = 3
"""Number of explanations by the chosen plan that are timed."""


@dataclass(frozen=True, slots=True)
class Times:
    """Median seconds of an explanation by a plan and of an exact one, measured in turn."""

    plan: float
    exact: float


def measured_costs(
    engines: Mapping[str, Engine], images: Sequence[FloatArray], positions: IntArray, goal: Goal
) -> dict[str, Costs]:
    """Measures the costs of each engine, by name: of baseline passes, of rounds of scattered positions, and of whole maps.

    Engines take turns, so that noise of the machine affects all of them. ``positions`` are those of a whole map.
    """
    scattered = np.random.default_rng(0).permutation(positions)
    counts = [count for count in TIMED_COUNTS if count < len(scattered)]
    once: dict[str, list[float]] = {name: [] for name in engines}
    rounds: dict[str, list[list[float]]] = {name: [] for name in engines}
    for number in range(TIMED_ROUNDS + 1):
        for name, engine in engines.items():
            baseline, seconds = _begun(engine, images[number % len(images)], goal, positions)
            once[name].append(seconds)
            rounds[name].append([_seconds(engine, baseline, scattered[:count]) for count in counts])
            rounds[name][-1].append(_whole_map(engine, baseline, positions))
    sizes = np.array([0, *counts, len(positions)])
    return {
        name: Costs(
            statistics.median(once[name][1:]),  # the first round is for warming up
            sizes,
            np.array([0.0, *np.maximum.accumulate(np.median(np.array(rounds[name][1:]), axis=0))]),
        )
        for name in engines
    }


def side_by_side(explainer: Explainer, samples: Sequence[Sample], goal: Goal, plan: SamplingPlan, tell: Tell) -> Times:
    """Times explanations of ``samples`` by ``plan``, spot check included, and exact ones before and after each."""
    samples = samples[:TIMED_IMAGES]
    planned, exact = [], []
    for done, sample in enumerate(samples):
        tell("timing the plan", done, len(samples))
        before, check = _exact(explainer, sample, goal, plan)
        planned.append(_planned(explainer, sample, goal, plan) + check)
        after, _ = _exact(explainer, sample, goal, plan)
        exact += [before, after]
    return Times(statistics.median(planned), statistics.median(exact))


def _exact(explainer: Explainer, sample: Sample, goal: Goal, plan: SamplingPlan) -> tuple[float, float]:
    """Predicted seconds of an exact explanation, and measured ones of the spot check of ``plan``."""
    engine, positions = explainer.exact, Grid(sample.exact.ys, sample.exact.xs).positions
    baseline, once = _begun(engine, sample.image, goal, positions)
    spots = np.random.default_rng(0).permutation(positions)[:SPOTS]
    check = _seconds(engine, baseline, spots) + (once if plan.variant != EVERYTHING.variant else 0.0)
    return once + _whole_map(engine, baseline, positions), check


def _planned(explainer: Explainer, sample: Sample, goal: Goal, plan: SamplingPlan) -> float:
    image = sample.image if explainer.manifest.layout == "NCHW" else np.ascontiguousarray(sample.image.transpose(0, 2, 3, 1))
    heat_map = explainer.explain(
        image, stride=goal.stride, target=sample.exact.target, fill=goal.fill, score=goal.score, quality=plan
    )
    return heat_map.seconds


def _begun(engine: Engine, image: FloatArray, goal: Goal, positions: IntArray) -> tuple[Baseline, float]:
    """The baseline pass for a map of ``positions``, and the seconds of it and of the uncovered outputs."""
    start = time.perf_counter()
    baseline = engine.baseline(image, goal.fill, len(positions))
    engine.unoccluded(baseline)
    return baseline, time.perf_counter() - start


def _seconds(engine: Engine, baseline: Baseline, positions: IntArray) -> float:
    start = time.perf_counter()
    engine.evaluate_all(baseline, positions)
    return time.perf_counter() - start


def _whole_map(engine: Engine, baseline: Baseline, positions: IntArray) -> float:
    """Predicted seconds of all ``positions``: from batches that represent them, or from a group of patches of their own."""
    if baseline.patches is None:
        chosen = np.concatenate(spread(engine, positions, SAMPLED))
    else:
        groups = list(apart(positions, engine.manifest.patch))
        chosen = positions[groups[len(groups) // 2]]
    return _seconds(engine, baseline, chosen) * len(positions) / len(chosen)
