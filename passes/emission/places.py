"""Where regions lie along one axis, for a batch: all that depends on the patch's place, in a few nodes for a whole model.

Nodes ask for numbers that follow from the place of the patch: the origin of a region times a stride, how many cells the
largest region of the batch has. They are columns of constant tables with a row for every place: one Gather fetches those of
the batch for all nodes at once, one ReduceMax finds what is largest, one Split hands them out. A node of its own for each
took more time than products did in models of a hundred small layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.regions.geometry import Spans
from kcompiler.runtime.arrays import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class _Origins:
    """Origins of a region by place, times a factor and moved: the less of ``start`` and ``bound - largest length`` of a batch.

    The bound moves regions near the end of the map inward, so that all of a batch, which are of one size, lie in it.
    """

    start: IntArray
    length: IntArray
    bound: int

    @classmethod
    def of(cls, spans: Spans, factor: int, offset: int) -> _Origins:
        return cls(spans.start * factor + offset, spans.lengths * factor, spans.size * factor + offset)

    @classmethod
    def constant(cls, value: int, places: int) -> _Origins:
        return cls(np.full(places, value), np.zeros(places, np.int64), value)


class Places:
    """The places of a batch of patches along one axis, and the regions of values there.

    What is asked for is a tensor at once; the nodes that compute it come with :meth:`finish`.
    """

    def __init__(self, emit: Emitter, positions: gs.Tensor, before: int, count: int, extents: str) -> None:
        """For ``positions`` (int64 [batch]) among ``count`` places, ``before`` of which come before position 0.

        Regions of a batch are as large as the largest of any place if ``extents`` is "static", of this batch if it is "tight".
        """
        self._emit, self._positions, self._before, self._count, self._extents = emit, positions, before, count, extents
        self._spans: list[Spans] = []
        self._numbers: dict[object, int] = {}
        self._given: dict[object, gs.Variable] = {}
        self._origins: dict[int, list[tuple[_Origins, gs.Variable]]] = {}
        self._differences: dict[int, list[tuple[_Origins, _Origins, gs.Variable]]] = {}
        self._largest: list[tuple[IntArray, gs.Variable]] = []

    def number(self, spans: Spans) -> int:
        """The number by which ``spans`` (none of them empty) are known here: the same for equal ones."""
        assert len(spans.start) == self._count, "spans of the same places"
        key = spans.start.tobytes(), spans.stop.tobytes(), spans.size
        if key not in self._numbers:
            self._numbers[key] = len(self._spans)
            self._spans.append(spans)
        return self._numbers[key]

    def origins(self, number: int, rank: int, factor: int = 1, offset: int = 0) -> gs.Tensor:
        """Origin of each region of the batch * ``factor`` + ``offset``: int32 [batch, 1, ..] of ``rank`` axes."""
        key = "origins", number, rank, factor, offset
        if key not in self._given:
            self._given[key] = gs.Variable(self._emit.fresh("origin"))
            of = _Origins.of(self._spans[number], factor, offset)
            self._origins.setdefault(rank, []).append((of, self._given[key]))
        return self._given[key]

    def differences(self, number: int | None, other: int, rank: int, factor: int, offset: int) -> gs.Tensor:
        """Origin * ``factor`` + ``offset``, less the origin of ``other``: int32 [batch, 1, ..]. A number of None is at 0."""
        key = "differences", number, other, rank, factor, offset
        if key not in self._given:
            self._given[key] = gs.Variable(self._emit.fresh("distance"))
            of = _Origins.constant(offset, self._count) if number is None else _Origins.of(self._spans[number], factor, offset)
            less = _Origins.of(self._spans[other], 1, 0)
            self._differences.setdefault(rank, []).append((of, less, self._given[key]))
        return self._given[key]

    def largest(self, number: int, factor: int = 1, offset: int = 0, tile: int = 1) -> gs.Tensor:
        """Cells of the batch's largest region, or tiles of ``tile`` that cover it, * ``factor`` + ``offset``: int32 [1]."""
        counts = -(-self._spans[number].lengths // tile) * factor + offset
        if self._extents == "static":
            return self._emit.int32([int(counts.max())])
        key = "largest", counts.tobytes()
        if key not in self._given:
            self._given[key] = gs.Variable(self._emit.fresh("extent"))
            self._largest.append((counts, self._given[key]))
        return self._given[key]

    def finish(self) -> None:
        """Emits what was asked for."""
        emit = self._emit
        places = emit("Add", self._positions, emit.int64(self._before))
        for rank, origins in self._origins.items():
            found = self._moved_inward([of for of, _ in origins], places)
            self._hand_out(found, rank, [value for _, value in origins])
        for rank, pairs in self._differences.items():
            both = (self._moved_inward([pair[side] for pair in pairs], places) for side in (0, 1))
            self._hand_out(emit("Sub", *both), rank, [value for _, _, value in pairs])
        if self._largest:
            counts = emit("Gather", emit.int32(np.stack([count for count, _ in self._largest], axis=1)), places, axis=0)
            self._split(emit("ReduceMax", counts, emit.int64([0]), keepdims=0), 0, [value for _, value in self._largest])

    def _moved_inward(self, origins: Sequence[_Origins], places: gs.Tensor) -> gs.Variable:
        """int32 [batch, origins]."""
        emit = self._emit
        start, length = (np.stack(of, axis=1) for of in ([one.start for one in origins], [one.length for one in origins]))
        bound = np.array([one.bound for one in origins])
        if self._extents == "static":
            return emit("Gather", emit.int32(np.minimum(start, bound - length.max(axis=0))), places, axis=0)
        lengths = emit("ReduceMax", emit("Gather", emit.int32(length), places, axis=0), emit.int64([0]), keepdims=0)
        return emit("Min", emit("Gather", emit.int32(start), places, axis=0), emit("Sub", emit.int32(bound), lengths))

    def _hand_out(self, columns: gs.Tensor, rank: int, values: list[gs.Variable]) -> None:
        axes = list(range(2, rank))
        self._split(self._emit("Unsqueeze", columns, self._emit.int64(axes)) if axes else columns, 1, values)

    def _split(self, columns: gs.Tensor, axis: int, values: list[gs.Variable]) -> None:
        sizes = self._emit.int64([1] * len(values))
        node = gs.Node("Split", name=self._emit.fresh("Split"), attrs={"axis": axis}, inputs=[columns, sizes], outputs=values)
        self._emit.graph.nodes.append(node)

    def ramp(self, rank: int) -> gs.Variable:
        """0, 1, 2 and so on, a number a patch: int32 [batch, 1, ..] of ``rank`` axes."""
        emit = self._emit
        # The ramp is cast, not its limit: ONNX's data propagation loses a Cast, and Range then meets mixed types.
        count = emit("Squeeze", emit("Shape", self._positions))
        ramp = emit("Cast", emit("Range", emit.int64(0), count, emit.int64(1)), to=TensorProto.INT32)
        return emit("Unsqueeze", ramp, emit.int64(list(range(1, rank))))

    @property
    def batch(self) -> gs.Variable:
        """How many patches: int32 [1]."""
        return self._emit("Cast", self._emit("Shape", self._positions), to=TensorProto.INT32)
