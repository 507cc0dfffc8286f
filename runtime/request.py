"""A request: the settings of an explanation, shared by all images of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.plans import SamplingPlan, Tuned
from kcompiler.runtime.bundle.targets import Score
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.inference.engine import Engine, Keep
from kcompiler.runtime.inputs.fills import PatchFill
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import Box, Edges, Stride
from kcompiler.runtime.inputs.selection import EVERYTHING, Selection
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import ProgressCallback

Quality = Literal["exact"] | float | SamplingPlan | Tuned


class Run(Protocol):
    """Evaluates positions of a picture, as :meth:`Engine.run` does, in any order of its batches."""

    def __call__(
        self, positions: IntArray, output: str, *, deadline: float = ..., keep: Keep
    ) -> Iterator[tuple[IntArray, FloatArray]]: ...


Spread = Callable[[Engine, Baseline, FloatArray | PatchFill, int], Run]
"""Makes what evaluates a picture's positions elsewhere: of the engine, the baseline, what covers, the number of positions."""


@dataclass(frozen=True, slots=True)
class Request:
    """The settings of :meth:`Explainer.explain`, which describes them.

    ``selection`` is of the files that images are read from; ``spread`` evaluates positions elsewhere, None here.
    """

    stride: Stride = 4
    target: int | str | None = None
    fill: Fill = 0.0
    region: Box | None = None
    edges: Edges = "valid"
    channel: int | None = None
    quality: Quality = "exact"
    score: Score = "auto"
    budget: float | None = None
    progress: ProgressCallback | bool | None = None
    resume: HeatMap | Sequence[HeatMap] | None = None
    selection: Selection = EVERYTHING
    spread: Spread | None = None
