"""One picture's positions shared among workers: every bit is that of one process, in whatever order parts come back."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, save
from quantised import save_static
from thread_workers import Threads

import kcompiler
from kcompiler.pool.crew import Crew, Opening
from kcompiler.pool.grid import SpreadGrid
from kcompiler.pool.worker import Lost
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.errors import WorkersLost
from kcompiler.runtime.explanation import explained
from kcompiler.runtime.request import Request

SIZE, PATCH = (24, 28), 5
SEGMENTATION = """<ir_version: 9, opset_import: ["" : 18]>
segmentation (float[batch, 3, 24, 28] image) => (float[batch, 4, 24, 28] classes) <float[4, 3, 3, 3] weights>
{
    maps = Conv<pads=[1, 1, 1, 1]>(image, weights)
    classes = Softmax<axis=1>(maps)
}"""
EXACT = Request(stride=1)
CASES = {
    "exact": ("chain", EXACT),
    "cut": ("chain", Request(stride=1, edges="cut", fill="blur", score="drop")),
    "marginal": ("chain", Request(stride=2, fill="marginal")),
    "kriging": ("chain", Request(stride=1, quality=SamplingPlan(step=6, share=0.5))),
    "drill-down": ("chain", Request(stride=1, quality=SamplingPlan(method="drill-down", step=4, share=0.5))),
    "quantised": ("quantised", EXACT),
    "cells of a class": ("segmentation", EXACT),
}


def segmentation(folder: Path) -> Path:
    """Its outputs are reduced by the driver, over cells that each baseline finds anew."""
    model = onnx.parser.parse_model(SEGMENTATION)
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), dtype=np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


MODELS = {
    "chain": (lambda folder: save("chain", folder / "model.onnx", *SIZE), {}),
    "quantised": (lambda folder: save_static(folder, NETWORKS["residual"]), {}),
    "segmentation": (segmentation, {"reduce": "mean", "reduce_over": "class"}),
}


class Small(Opening):
    """Loads a bundle so that a small picture has many batches."""

    def load(self):
        explainer = super().load()
        for engine in explainer.engines.values():
            engine.batch = 16
        return explainer


@pytest.fixture(scope="module")
def opening_of(tmp_path_factory):
    """How to load a model of :data:`MODELS`, compiled on first use."""

    @cache
    def opening(name):
        folder = tmp_path_factory.mktemp("grid")
        make, options = MODELS[name]
        return Small(kcompiler.compile(make(folder), patch=PATCH, **options).save(folder / "model.kc"), threads=2)

    return opening


def shared(opening, request, backend, said=None):
    spread = SpreadGrid(Crew(backend, opening), (said if said is not None else []).append)
    spread.open()
    explainer = opening.load()
    image = np.random.default_rng(0).standard_normal((1, *explainer.manifest.shape), dtype=np.float32)
    try:
        return explained(explainer, image, request), explained(explainer, image, replace(request, spread=spread))
    finally:
        spread.close()


@pytest.mark.parametrize(("model", "request_"), CASES.values(), ids=CASES)
def test_the_bits_are_those_of_one_process(opening_of, model, request_):
    alone, together = shared(opening_of(model), request_, backend := Threads(3))
    assert np.array_equal(alone.scores, together.scores)
    assert np.array_equal(alone.sampled, together.sampled)
    assert alone.warnings == together.warnings
    assert len(backend.started) == 3


class Dying(Threads):
    """Workers that are lost over a part, once or always."""

    def __init__(self, always):
        super().__init__(2)
        self.always = always

    def start(self, opens):
        def dying(stopping):
            work = opens(stopping)

            def evaluate(part, lost):
                if part.number == 1 and (self.always or not lost):
                    raise Lost("killed")
                return work(part, lost)

            return evaluate

        return super().start(dying)


def test_a_part_whose_worker_is_lost_is_evaluated_by_another(opening_of):
    opening = opening_of("chain")
    alone, together = shared(opening, EXACT, backend := Dying(always=False), said := [])
    assert np.array_equal(alone.scores, together.scores)
    assert len(backend.started) == 3
    assert len(said) == 1
    with pytest.raises(WorkersLost, match="a part of the positions cannot be evaluated: 3 workers were lost over it"):
        shared(opening, EXACT, Dying(always=True))
