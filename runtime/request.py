"""A request: the settings of an explanation, shared by all images of a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kcompiler.runtime.bundle.plans import SamplingPlan, Tuned
from kcompiler.runtime.bundle.targets import Score
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import Box, Edges, Stride
from kcompiler.runtime.inputs.selection import EVERYTHING, Selection
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import ProgressCallback

Quality = Literal["exact"] | float | SamplingPlan | Tuned


@dataclass(frozen=True, slots=True)
class Request:
    """The settings of :meth:`Explainer.explain`, which describes them.

    ``selection`` is of the files that images are read from.
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
