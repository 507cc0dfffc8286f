"""Index arithmetic of the emitted graph: from a window over a region to the rows it reads.

An activation is read from its *union table* [H*W + 2 + batch*h*w, C]: the rows of the cached map, a row of zeros, a row
of the lowest float, then the rows of the updated regions. Which row a cell comes from is separable: along each axis a
cell has an offset into the cached map (or far above it, when it is padding) and one into its updated region (or far
below, when it lies outside). So only ``max(min(cached_y + cached_x, pad row), updated_y + updated_x)`` is full-size work;
the rest are vectors. All of it is int32, half the traffic of int64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emit import Emitter
from kcompiler.passes.geometry import Spans, Window

FAR = 1 << 29
"""More than any row number; the sum of two of them still fits int32."""
PAD_ROWS = 2
ZERO_ROW = 0
LOWEST_ROW = 1


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a region as tensors: region b covers cells [origin[b], origin[b] + extent) of ``size``.

    Attributes:
        origin: int32 [batch] (or [1] when it is the same for all).
        extent: int32 scalar, shared by the batch.
        size: cells of the map along this axis.
    """

    origin: gs.Tensor
    extent: gs.Tensor
    size: int


@dataclass(frozen=True, slots=True)
class Box:
    """The (y, x) axes of a region."""

    y: Axis
    x: Axis


def region_axis(emit: Emitter, spans: Spans, positions: gs.Tensor, extents: str) -> Axis:
    """The axis of a region for the patch origins ``positions`` (int64 [batch]).

    The extent is the longest span: of all origins when ``extents`` is "static" (a constant), of this batch when it is
    "tight". Near the end of the map the origin is moved inward, so that every region lies inside its map.
    """
    spans = spans.at_least_one()
    start = emit("Gather", emit.int32(spans.start), positions, axis=0)
    if extents == "static":
        extent: gs.Tensor = emit.int32(int(spans.lengths.max()))
    else:
        lengths = emit("Gather", emit.int32(spans.lengths), positions, axis=0)
        extent = emit("ReduceMax", lengths, emit.int64([0]), keepdims=0)
    last = emit("Sub", emit.int32(spans.size), extent)
    return Axis(emit("Min", start, last), extent, spans.size)


def whole_axis(emit: Emitter, size: int) -> Axis:
    """The axis of a region that is the whole map."""
    return Axis(emit.int32([0]), emit.int32(size), size)


@dataclass(frozen=True, slots=True)
class Reads:
    """Cells read along one axis, in padded coordinates (cell + pad): int32 [batch or 1, cells] or [.., outputs, taps]."""

    cells: gs.Tensor
    window: Window
    taps: bool


def contiguous_reads(emit: Emitter, window: Window, output: Axis) -> Reads:
    """Every input cell from the first to the last that the region's windows touch: [batch, (extent - 1) * stride + reach]."""
    first = emit("Mul", output.origin, emit.int32(window.stride))
    span = emit("Mul", emit("Sub", output.extent, emit.int32(1)), emit.int32(window.stride))
    count = emit("Add", span, emit.int32(window.reach))
    steps = emit("Range", emit.int32(0), count, emit.int32(1))
    return Reads(emit("Add", emit("Unsqueeze", first, emit.int64([1])), steps), window, taps=False)


def window_reads(emit: Emitter, window: Window, output: Axis) -> Reads:
    """The taps of every window of the region: [batch, extent, kernel]."""
    steps = emit("Range", emit.int32(0), output.extent, emit.int32(1))
    outputs = emit("Add", emit("Unsqueeze", output.origin, emit.int64([1])), steps)
    first = emit("Mul", outputs, emit.int32(window.stride))
    taps = emit.int32(np.arange(window.kernel) * window.dilation)
    return Reads(emit("Add", emit("Unsqueeze", first, emit.int64([2])), taps), window, taps=True)


def row_index(emit: Emitter, value: Box, y: Reads, x: Reads, pad_row: int) -> gs.Variable:
    """Rows of the union table of a value whose updated region is ``value``, for all pairs of reads.

    Returns:
        int32 [batch, y cells, x cells], or [batch, y outputs, x outputs, y taps, x taps].
    """
    width = value.x.size
    base = value.y.size * width + PAD_ROWS
    area = emit("Mul", value.y.extent, value.x.extent)
    count = emit("Shape", value.y.origin, end=1)
    # The ramp is cast, not its limit: ONNX's data propagation loses a Cast, and Range then meets mixed types.
    ramp = emit("Cast", emit("Range", emit.int64(0), emit("Squeeze", count), emit.int64(1)), to=TensorProto.INT32)
    first_row = emit("Add", emit("Mul", ramp, area), emit.int32(base))
    cached_y, updated_y = _offsets(emit, value.y, y, width, value.x.extent, first_row)
    cached_x, updated_x = _offsets(emit, value.x, x, 1, emit.int32(1), None)
    axes_y, axes_x = (emit.int64([2, 4]), emit.int64([1, 3])) if y.taps else (emit.int64([2]), emit.int64([1]))

    def outer(along_y: gs.Tensor, along_x: gs.Tensor) -> gs.Variable:
        return emit("Add", emit("Unsqueeze", along_y, axes_y), emit("Unsqueeze", along_x, axes_x))

    cached = outer(cached_y, cached_x)
    if y.window.pads or x.window.pads:
        cached = emit("Min", cached, emit.int32(value.y.size * width + pad_row))
    return emit("Max", cached, outer(updated_y, updated_x))


def cell_index(emit: Emitter, box: Box) -> gs.Variable:
    """Rows of a map's own table (no padding, nothing updated) for every cell of the box: int32 [batch, h, w]."""
    y, x = (contiguous_reads(emit, Window.identity(axis.size), axis).cells for axis in (box.y, box.x))
    lines = emit("Mul", emit("Unsqueeze", y, emit.int64([2])), emit.int32(box.x.size))
    return emit("Add", lines, emit("Unsqueeze", x, emit.int64([1])))


def _offsets(
    emit: Emitter, axis: Axis, reads: Reads, step: int, updated_step: gs.Tensor, first_row: gs.Tensor | None
) -> tuple[gs.Variable, gs.Variable]:
    """Along one axis, the offsets of the cells read: into the cached map, and into the updated regions."""
    window = reads.window
    cells = np.arange(window.input_extent(window.outputs)) - window.pad
    table = np.where((cells >= 0) & (cells < window.inputs), cells * step, FAR)
    cached = emit("Gather", emit.int32(table), reads.cells, axis=0)
    lift = emit.int64([1, 2] if reads.taps else [1])
    origin = emit("Unsqueeze", emit("Add", axis.origin, emit.int32(window.pad)), lift)
    relative = emit("Sub", reads.cells, origin)
    inside = emit("And", emit("GreaterOrEqual", relative, emit.int32(0)), emit("Less", relative, axis.extent))
    offset = emit("Mul", relative, updated_step)
    if first_row is not None:
        offset = emit("Add", offset, emit("Unsqueeze", first_row, lift))
    return cached, emit("Where", inside, offset, emit.int32(-FAR))
