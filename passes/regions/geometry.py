"""The span of an axis that a patch can change: integer arithmetic only, no ONNX.

A patch that moves along an axis of the image changes, in every later value, a half-open span of that axis. Spans are
computed for all patch origins at once (arrays of length ``origins``). So the geometry of a value is two small arrays per axis,
after any chain of windows, unions and caps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Half-open spans ``start <= i < stop`` of an axis of ``size`` cells, one per patch origin.

    Attributes:
        start: int64 [origins].
        stop: int64 [origins]. A span may be empty (``stop == start``) where the patch falls between windows.
        size: cells of the axis.
        centre: float64 [origins], the projection of the patch's centre onto this axis, which may lie off the map.
        before: number of negative origins. Their patches are clipped by the image's edge, and as many are clipped at the end.
            Origin 0 has index ``before``.
    """

    start: IntArray
    stop: IntArray
    size: int
    centre: DoubleArray
    before: int = 0

    @classmethod
    def of_patch(cls, size: int, patch: int) -> Spans:
        """Spans of the image axis itself: a patch at origin i covers [i, i + patch) clipped to the image, at least one pixel."""
        origins = np.arange(1 - patch, size, dtype=np.int64)
        start, stop = np.maximum(origins, 0), np.minimum(origins + patch, size)
        return cls(start, stop, size, origins.astype(np.float64) + (patch - 1) / 2, patch - 1)

    @property
    def whole(self) -> slice:
        """Slice of the origins whose patch lies inside the image."""
        return slice(self.before, len(self.start) - self.before)

    @property
    def lengths(self) -> IntArray:
        return self.stop - self.start

    def union(self, other: Spans) -> Spans:
        """The smallest spans that cover both, as for the merge of two branches. An empty span adds nothing."""
        assert self.size == other.size, "merged values have the same map"
        start = np.minimum(np.where(self.lengths > 0, self.start, self.size), np.where(other.lengths > 0, other.start, self.size))
        stop = np.maximum(np.where(self.lengths > 0, self.stop, 0), np.where(other.lengths > 0, other.stop, 0))
        return replace(self, start=np.minimum(start, stop), stop=stop)

    def capped(self, limit: int) -> Spans:
        """Spans of at most ``limit`` cells: longer spans keep the cells nearest to the patch's projection.

        Source: projective field thresholding, Nakandala, Kumar, Papakonstantinou, SIGMOD 2019, section 4.1.
        """
        nearest = np.rint(self.centre - (limit - 1) / 2).astype(np.int64)
        start = np.clip(nearest, self.start, np.maximum(self.stop - limit, self.start))
        return replace(self, start=start, stop=np.minimum(self.stop, start + limit))

    def at_least_one(self) -> Spans:
        """The spans with empty ones widened to one cell. Recomputing an unchanged cell is exact, and avoids empty tensors."""
        start = np.minimum(self.start, self.size - 1)
        return replace(self, start=start, stop=np.maximum(self.stop, start + 1))


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window along one axis: output cell o reads input cells o * stride - pad + t * dilation, t < kernel.

    ``pad`` is the padding before the first cell; that after the last cell follows from ``outputs``.
    """

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pad: int = 0

    @classmethod
    def identity(cls, size: int) -> Window:
        """A window of one cell with stride 1: each output reads the cell at its own index."""
        return cls(inputs=size, outputs=size)

    @property
    def reach(self) -> int:
        """Extent of the dilated kernel: cells from the first tap to the last, both included."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def pads(self) -> bool:
        """Whether any window reads outside the input."""
        return self.pad > 0 or (self.outputs - 1) * self.stride - self.pad + self.reach > self.inputs

    def changed(self, spans: Spans) -> Spans:
        """Outputs whose window touches ``spans``, clipped to the map. With dilation or stride, some of them may be unchanged."""
        assert spans.size == self.inputs, "the window slides over the value the spans belong to"
        first = -((self.reach - self.pad - 1 - spans.start) // self.stride)
        last = (spans.stop - 1 + self.pad) // self.stride
        start = np.clip(first, 0, self.outputs)
        stop = np.clip(np.where(spans.lengths > 0, last + 1, 0), start, self.outputs)
        centre = (spans.centre + self.pad - (self.reach - 1) / 2) / self.stride
        return Spans(start, stop, self.outputs, centre, spans.before)

    def input_extent(self, extent: int) -> int:
        """Extent of the receptive field of ``extent`` neighbouring outputs, padding included."""
        return (extent - 1) * self.stride + self.reach

    def counted_taps(self, before: int, after: int) -> IntArray:
        """int64 [outputs]: taps of each window inside the input extended by ``before`` and ``after`` cells of padding."""
        taps = np.arange(self.outputs)[:, None] * self.stride - self.pad + np.arange(self.kernel)[None, :] * self.dilation
        counted: IntArray = ((taps >= -before) & (taps < self.inputs + after)).sum(axis=1)
        return counted

    def padded_width(self, width: int) -> int:
        """Extent of the output region for an input region of ``width``, as the paper counts: min(map, ceil((p + k - 1) / s)).

        Source: Nakandala, Kumar, Papakonstantinou, SIGMOD 2019, section 3.
        """
        return min(self.outputs, -(-(width + self.reach - 1) // self.stride))


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """A sparse linear map along one axis: output o is the sum over t of weights[o, t] * input cells[o, t].

    Attributes:
        inputs: cells of the input.
        cells: int64 [outputs, taps], indices of input cells; the index ``inputs`` is a zero of padding.
        weights: float32 [outputs, taps].
    """

    inputs: int
    cells: IntArray
    weights: FloatArray

    @classmethod
    def of(cls, matrix: FloatArray) -> Taps:
        """The taps of a dense matrix [outputs, inputs]."""
        used = matrix != 0
        count = max(1, int(used.sum(axis=1).max()))
        first = np.argsort(~used, axis=1, kind="stable")[:, :count]
        weights = np.take_along_axis(matrix, first, axis=1).astype(np.float32)
        return cls(matrix.shape[1], np.where(weights != 0, first, matrix.shape[1]), weights)

    @classmethod
    def repeated(cls, size: int, times: int) -> Taps:
        """Repeats each of ``size`` cells ``times`` times."""
        cells = np.repeat(np.arange(size), times)[:, None]
        return cls(size, cells, np.ones(cells.shape, np.float32))

    @property
    def outputs(self) -> int:
        return len(self.cells)

    @property
    def copies(self) -> bool:
        """Whether every output copies one input cell or is zero."""
        return self.cells.shape[1] == 1 and bool(np.isin(self.weights, (0, 1)).all())

    def changed(self, spans: Spans) -> Spans:
        """Outputs from the first to the last that read a cell of ``spans``."""
        assert spans.size == self.inputs, "the taps are of the value the spans belong to"
        touched = np.zeros((self.outputs, len(spans.start)), np.bool_)
        for cells in self.cells.T:
            touched |= (cells[:, None] >= spans.start) & (cells[:, None] < spans.stop)
        nonempty = touched.any(axis=0)
        start = np.where(nonempty, touched.argmax(axis=0), 0)
        stop = np.where(nonempty, self.outputs - touched[::-1].argmax(axis=0), 0)
        weights = np.abs(self.weights)
        projections = (weights * self.cells).sum(axis=1) / np.maximum(weights.sum(axis=1), np.finfo(np.float32).tiny)
        centre = np.abs(projections[:, None] - spans.centre).argmin(axis=0).astype(np.float64)
        return Spans(start, stop, self.outputs, centre, spans.before)
