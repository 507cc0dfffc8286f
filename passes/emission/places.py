"""Origins and extents of the regions of a batch along one axis, computed by a few nodes for the whole model.

Lowerings request values that depend on the patch position: the origin of a region times a stride, the extent of the largest
region in the batch. They are columns of constant tables with one row for each patch position along the axis. One Gather
fetches the rows of the batch for all requests, one ReduceMax takes the largest extents, one Split separates the columns.
Separate nodes for each request took more time than the matrix products in models of a hundred small layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes import assumed
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.regions.geometry import Spans
from kcompiler.runtime.arrays import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class _Origins:
    """Region origins by patch position, scaled and shifted: the minimum of ``start`` and ``bound - largest length`` in a batch.

    All regions of a batch have the extent of the largest. The bound moves regions near the end of the map inward, so that they
    stay inside the map.

    Attributes:
        start: int64 [places].
        length: int64 [places], scaled like ``start``.
        bound: the end of the map, scaled and shifted like ``start``.
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
    """The patch positions of a batch along one axis, and the regions of values at these positions.

    A request returns a tensor at once; :meth:`finish` emits the nodes that compute all of them.
    """

    def __init__(
        self, emit: Emitter, positions: gs.Tensor, before: int, count: int, extents: str, sizing: gs.Tensor | None = None
    ) -> None:
        """For ``positions`` (int64 [batch]) out of ``count``, of which the first ``before`` are negative.

        Regions have the extent of the largest at any position if ``extents`` is "static", in the batch if it is "tight", and at
        the positions ``sizing`` (int64 [any number]) if it is "classes".
        """
        self._emit, self._positions, self._before, self._count, self._extents = emit, positions, before, count, extents
        self._sizing = positions if sizing is None else sizing
        self._spans: list[Spans] = []
        self._numbers: dict[object, int] = {}
        self._requested: dict[object, gs.Variable] = {}
        self._origins: dict[int, list[tuple[_Origins, gs.Variable]]] = {}
        self._differences: dict[int, list[tuple[_Origins, _Origins, gs.Variable]]] = {}
        self._largest: list[tuple[IntArray, gs.Variable]] = []

    def number(self, spans: Spans) -> int:
        """Registers ``spans`` (none of them empty) and returns their index; equal spans share it."""
        assert len(spans.start) == self._count, "spans of the same places"
        key = spans.start.tobytes(), spans.stop.tobytes(), spans.size
        if key not in self._numbers:
            self._numbers[key] = len(self._spans)
            self._spans.append(spans)
        return self._numbers[key]

    def origins(self, number: int, rank: int, factor: int = 1, offset: int = 0) -> gs.Tensor:
        """Requests the origin of each region of the batch * ``factor`` + ``offset``: int32 [batch, 1, ..] of ``rank`` axes."""
        key = "origins", number, rank, factor, offset
        if key not in self._requested:
            self._requested[key] = gs.Variable(self._emit.fresh("origin"))
            origins = _Origins.of(self._spans[number], factor, offset)
            self._origins.setdefault(rank, []).append((origins, self._requested[key]))
        return self._requested[key]

    def differences(self, number: int | None, other: int, rank: int, factor: int, offset: int) -> gs.Tensor:
        """Requests origin * ``factor`` + ``offset`` minus the origin of ``other``: int32 [batch, 1, ..].

        A ``number`` of None is the whole map, whose origin is 0.
        """
        key = "differences", number, other, rank, factor, offset
        if key not in self._requested:
            self._requested[key] = gs.Variable(self._emit.fresh("distance"))
            left = _Origins.constant(offset, self._count) if number is None else _Origins.of(self._spans[number], factor, offset)
            right = _Origins.of(self._spans[other], 1, 0)
            self._differences.setdefault(rank, []).append((left, right, self._requested[key]))
        return self._requested[key]

    def largest(self, number: int, factor: int = 1, offset: int = 0, tile: int = 1) -> gs.Tensor:
        """Requests the common extent in cells, or in tiles of ``tile`` cells, * ``factor`` + ``offset``: int32 [1]."""
        counts = -(-self._spans[number].lengths // tile) * factor + offset
        if self._extents == "static":
            return self._emit.int32([int(counts.max())])
        key = "largest", counts.tobytes()
        if key not in self._requested:
            self._requested[key] = gs.Variable(self._emit.fresh("extent"))
            self._largest.append((counts, self._requested[key]))
        return self._requested[key]

    def finish(self) -> None:
        """Emits the nodes that compute all requested tensors."""
        emit, before = self._emit, self._emit.int64(self._before)
        places, sizing = emit("Add", self._positions, before), emit("Add", self._sizing, before)
        for rank, origins in self._origins.items():
            columns = self._moved_inward([origin for origin, _ in origins], places, sizing)
            self._hand_out(columns, rank, [value for _, value in origins])
        for rank, pairs in self._differences.items():
            both = (self._moved_inward([pair[side] for pair in pairs], places, sizing) for side in (0, 1))
            self._hand_out(emit("Sub", *both), rank, [value for _, _, value in pairs])
        if self._largest:
            counts = emit("Gather", emit.int32(np.stack([count for count, _ in self._largest], axis=1)), sizing, axis=0)
            self._split(emit("ReduceMax", counts, emit.int64([0]), keepdims=0), 0, [value for _, value in self._largest])

    def _moved_inward(self, origins: Sequence[_Origins], places: gs.Tensor, sizing: gs.Tensor) -> gs.Variable:
        """The origins at ``places`` (indices into the tables, int64 [batch]): int32 [batch, origins].

        ``sizing`` are indices of the positions that determine the extents.
        """
        emit = self._emit
        start, length = (np.stack(columns, axis=1) for columns in ([o.start for o in origins], [o.length for o in origins]))
        bound = np.array([o.bound for o in origins])
        if self._extents == "static":
            return emit("Gather", emit.int32(np.minimum(start, bound - length.max(axis=0))), places, axis=0)
        lengths = emit("ReduceMax", emit("Gather", emit.int32(length), sizing, axis=0), emit.int64([0]), keepdims=0)
        return emit("Min", emit("Gather", emit.int32(start), places, axis=0), emit("Sub", emit.int32(bound), lengths))

    def _hand_out(self, columns: gs.Tensor, rank: int, values: list[gs.Variable]) -> None:
        axes = list(range(2, rank))
        self._split(self._emit("Unsqueeze", columns, self._emit.int64(axes)) if axes else columns, 1, values)

    def _split(self, columns: gs.Tensor, axis: int, values: list[gs.Variable]) -> None:
        """One column each, by Splits of at most :data:`assumed.WIDEST_SPLIT` outputs."""
        size = -(-len(values) // assumed.WIDEST_SPLIT)
        groups = [values[start : start + size] for start in range(0, len(values), size)]
        parts = [group[0] if len(group) == 1 else gs.Variable(self._emit.fresh("columns")) for group in groups]
        sizes = self._emit.int64([len(group) for group in groups])
        node = gs.Node("Split", name=self._emit.fresh("Split"), attrs={"axis": axis}, inputs=[columns, sizes], outputs=parts)
        self._emit.graph.nodes.append(node)
        for part, group in zip(parts, groups, strict=True):
            if len(group) > 1:
                self._split(part, axis, group)

    def ramp(self, rank: int) -> gs.Variable:
        """The index of each patch position in the batch, from 0: int32 [batch, 1, ..] of ``rank`` axes."""
        emit = self._emit
        # The ramp is cast, not its limit: ONNX's data propagation drops a Cast, and the types of Range's inputs then differ.
        count = emit("Squeeze", emit("Shape", self._positions))
        ramp = emit("Cast", emit("Range", emit.int64(0), count, emit.int64(1)), to=TensorProto.INT32)
        return emit("Unsqueeze", ramp, emit.int64(list(range(1, rank))))

    @property
    def batch(self) -> gs.Variable:
        """The number of patch positions in the batch: int32 [1]."""
        return self._emit("Cast", self._emit("Shape", self._positions), to=TensorProto.INT32)
