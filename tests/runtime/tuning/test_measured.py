"""Times that are compared: measured now and in turn, by a clock that moves as the machine computes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from networks import save
from slow_models import slow_model

import kcompiler
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.inference.schedule import Extents, schedule
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.tuning import measured
from kcompiler.runtime.tuning.measured import TIMED_COUNTS, Times, measured_costs, side_by_side
from kcompiler.runtime.tuning.trials import Goal, Sample
from kcompiler.runtime.tuning.tuner import tune

SIZE, PATCH, STRIDE = (64, 64), (4, 4), 2
GRID = make_grid(SIZE, PATCH, STRIDE)
ONCE, EACH = 2.0, 0.25


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(measured, "time", found)
    return found


class Engine:
    """Takes ONCE for a baseline pass and EACH for a position, times how busy the machine is."""

    def __init__(self, clock, patches=None):
        self.clock, self.busy, self.patches, self.evaluated = clock, 1.0, patches, []
        self.workers, self.manifest = SimpleNamespace(count=2), SimpleNamespace(patch=PATCH)
        heights, widths = ([1] * (side + length - 1) for side, length in zip(SIZE, PATCH, strict=True))
        self.extents = Extents.of([(1.0, heights, widths)], PATCH)

    def baseline(self, image, fill, positions):
        self.clock.now += ONCE * self.busy
        return SimpleNamespace(patches=self.patches)

    def unoccluded(self, baseline):
        pass

    def batches(self, positions):
        return schedule(positions, self.extents, 16)

    def work(self, batch):
        return 1.0

    def evaluate_all(self, baseline, positions):
        self.evaluated.append(len(positions))
        self.clock.now += EACH * self.busy * len(positions)


def test_costs_reach_up_to_the_whole_map(clock):
    engines = {"exact": Engine(clock), "half": Engine(clock)}
    engines["half"].busy = 0.5
    costs = measured_costs(engines, [None], GRID.positions, Goal())
    assert costs["exact"].counts.tolist() == [0, *TIMED_COUNTS, len(GRID.positions)]
    assert costs["exact"].of_map == pytest.approx(ONCE + EACH * len(GRID.positions))
    assert costs["half"].of_map == pytest.approx(costs["exact"].of_map / 2)
    assert sum(engines["exact"].evaluated) < 2 * len(GRID.positions), "of a sample"


def test_patches_of_their_own_are_timed_by_a_group_that_does_not_overlap(clock):
    engine = Engine(clock, patches=object())
    cost = measured_costs({"exact": engine}, [None], GRID.positions, Goal())["exact"]
    assert cost.of_map == pytest.approx(ONCE + EACH * len(GRID.positions))
    rows = len(GRID.ys) // (PATCH[0] // STRIDE)
    assert engine.evaluated[-1] in {(rows + more_y) * (rows + more_x) for more_y in (0, 1) for more_x in (0, 1)}


def test_a_machine_that_becomes_busy_slows_both_that_are_compared(clock):
    """Ten times slower from the second image on: the plan takes a fifth of an exact map, before and after."""
    exact = Engine(clock)
    whole = ONCE + EACH * len(GRID.positions)

    def explain(image, **settings):
        seconds = whole / 5 * exact.busy
        clock.now += seconds
        exact.busy = 10.0
        return SimpleNamespace(seconds=seconds)

    explainer = SimpleNamespace(exact=exact, explain=explain, manifest=SimpleNamespace(layout="NCHW"))
    map_ = SimpleNamespace(ys=GRID.ys, xs=GRID.xs, target=0, seconds=1e9)
    told = []
    samples = [Sample(None, map_)] * 5
    times = side_by_side(explainer, samples, Goal(), SamplingPlan(step=8), lambda *what: told.append(what))
    check = EACH * 12 * 10
    assert times.exact == pytest.approx(10 * whole)
    assert times.plan == pytest.approx(2 * whole + check)
    assert told == [("timing the plan", done, 3) for done in range(3)]


@pytest.fixture(scope="module")
def explainer(tmp_path_factory):
    model = save("residual", tmp_path_factory.mktemp("bundle") / "model.onnx", 40, 44)
    return kcompiler.load(kcompiler.compile(model, patch=(4, 6)), threads=1)


def samples_of(explainer, seconds):
    """Exact maps that say that they took ``seconds`` when they were made."""
    y, x = np.mgrid[0:40, 0:44] / 10
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image = np.array([np.sin(rng.normal() * y + rng.normal() * x + 6 * rng.random()) for _ in range(3)], np.float32)
        checked = explainer.check_image(image)
        yield Sample(checked, replace(explainer.explain(checked, stride=1, target=1), seconds=seconds))


@pytest.mark.parametrize("stored", [1e-9, 1e9])
def test_what_a_stored_map_took_is_compared_with_nothing(explainer, stored):
    samples = list(samples_of(explainer, stored))
    assert all(isinstance(sample.exact, HeatMap) for sample in samples)
    with slow_model():
        found = tune(explainer, samples, Goal(ssim=0.5, share=0.5, confidence=0.6, stride=1, target=1))
    assert not found.plan.everything
    assert found.evidence.exact_seconds == 10.0


def test_a_plan_that_takes_no_less_than_an_exact_map_is_not_taken(explainer):
    samples = list(samples_of(explainer, 1.0))
    with slow_model(Times(plan=3.0, exact=2.0)):
        found = tune(explainer, samples, Goal(ssim=0.5, share=0.5, confidence=0.6, stride=1, target=1))
    assert found.plan == EVERYTHING
    assert (found.evidence.seconds, found.evidence.exact_seconds, found.evidence.evaluated) == (2.0, 2.0, 1.0)
    assert found.promised
