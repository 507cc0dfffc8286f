"""The boxes of a batch's regions, as numbers of the emitted graph: an axis and another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from kcompiler.passes.emission.places import Places
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.regions.geometry import Spans
from kcompiler.runtime.arrays import IntArray


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the regions of a batch: all as long as the largest, from their origins on.

    Attributes:
        places: of the batch's patches along this axis.
        along: 0 for y, 1 for x.
        number: by which ``places`` knows the regions; None is the whole map.
        size: cells of the map along this axis.
    """

    places: Places
    along: int
    number: int | None
    size: int

    def extent(self, emit: Emitter, factor: int = 1, offset: int = 0, tile: int = 1) -> gs.Tensor:
        """Cells, or tiles that cover them, * ``factor`` + ``offset``: int32 [1]."""
        if self.number is None:
            return emit.int32([-(-self.size // tile) * factor + offset])
        return self.places.largest(self.number, factor, offset, tile)


@dataclass(frozen=True, slots=True)
class Box:
    """The (y, x) axes of a region."""

    y: Axis
    x: Axis


def first_of(emit: Emitter, values: IntArray, count: gs.Tensor, shape: Sequence[int]) -> gs.Variable:
    """The first ``count`` (int32 [1]) along the first axis of ``values`` in ``shape``."""
    return emit("Slice", emit.int32(values.reshape(shape)), emit.int32([0]), count, emit.int32([0]))


def region_axis(places: Places, along: int, spans: Spans) -> Axis:
    """The axis of a region; where the patch changes nothing, it is one cell."""
    return Axis(places, along, places.number(spans.at_least_one()), spans.size)
