"""A map that gets better while one watches, of which only as many states are drawn as pay."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.explanation import Explanation
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import Progress
from kcompiler.runtime.request import Request

INTERVAL = 0.1
"""Least seconds between two states of a map."""
SHARE = 0.2
"""Largest share of the time that estimating the rest of the map may take: the estimate of a large map takes longer than a batch
of a small model."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A map so far, or the final one.

    Attributes:
        heat_map: the map; what is not evaluated yet is estimated.
        progress: where the run is, with a forecast.
        final: whether nothing more comes.
    """

    heat_map: HeatMap
    progress: Progress
    final: bool


def refined(explainer: Explainer, image: FloatArray, request: Request) -> Generator[State | None]:
    """Makes a map in the order in which it is good early; yields a state, or None where none is due, after every batch."""
    start = time.perf_counter()
    explanation = Explanation(explainer, image, request, anytime=True)
    exploration, due = explanation.exploration, 0.0

    def progress() -> Progress:
        return Progress(int(exploration.evaluated.sum()), exploration.most, time.perf_counter() - start)

    for _ in exploration.run(explanation.deadline):
        began = time.perf_counter()
        if began < due:
            yield None
            continue
        sampled = exploration.evaluated.reshape(explanation.grid.shape).copy()
        heat_map = explanation.map_of(explanation.target, exploration.surface(), sampled, complete=False, earlier=0.0)
        took = time.perf_counter() - began
        due = began + max(INTERVAL, took / SHARE)
        yield State(heat_map, progress(), final=False)
    *_, heat_map = explanation.maps(every_batch=False)  # what is left to say of the whole map: its caveats
    yield State(heat_map, progress(), final=True)
