"""The boxes of a batch's regions as tensors of the emitted graph: origins and a common extent along y and x."""

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
    """One axis of a value's regions in a batch: each from its own origin, all of the extent of the largest.

    Attributes:
        places: the patch positions of the batch along this axis.
        along: 0 for y, 1 for x.
        number: index of the regions' spans in ``places``; None is the whole map.
        size: cells of the map along this axis.
    """

    places: Places
    along: int
    number: int | None
    size: int

    def extent(self, emit: Emitter, factor: int = 1, offset: int = 0, tile: int = 1) -> gs.Tensor:
        """The common extent in cells, or in tiles that cover it, * ``factor`` + ``offset``: int32 [1]."""
        if self.number is None:
            return emit.int32([-(-self.size // tile) * factor + offset])
        return self.places.largest(self.number, factor, offset, tile)


@dataclass(frozen=True, slots=True)
class Box:
    """The (y, x) axes of a region."""

    y: Axis
    x: Axis


def first_of(emit: Emitter, values: IntArray, count: gs.Tensor, shape: Sequence[int]) -> gs.Variable:
    """``values`` reshaped to ``shape``, sliced to the first ``count`` (int32 [1]) along the first axis."""
    return emit("Slice", emit.int32(values.reshape(shape)), emit.int32([0]), count, emit.int32([0]))


def region_axis(places: Places, along: int, spans: Spans) -> Axis:
    """The axis of a region with ``spans``; where a span is empty, the region has one cell."""
    return Axis(places, along, places.number(spans.at_least_one()), spans.size)
