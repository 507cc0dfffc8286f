"""Pooling on regions: gather every window, reduce it."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emit import Emitter
from kcompiler.passes.geometry import IntArray
from kcompiler.passes.index import Axis
from kcompiler.passes.lowering.site import LOWEST_ROW, Site, Updated
from kcompiler.passes.lowering.table import lowering
from kcompiler.passes.work import Shape, Work


def _windows_work(shape: Shape) -> Work:
    gathered = shape.cells * shape.taps * shape.channels
    return Work(moved=shape.union + 3 * gathered, nodes=20 / shape.batch, held=gathered + shape.cells * shape.outputs)


@lowering("window max", "MaxPool", work=_windows_work)
def max_pool(site: Site) -> Updated:
    """Padding is the lowest float, not zero, as in the operator."""
    return site.computed(rows=site.emit("ReduceMax", _windows(site, LOWEST_ROW), site.emit.int64([1]), keepdims=0))


@lowering("window mean", "AveragePool", work=_windows_work)
def average_pool(site: Site) -> Updated:
    """The sum of each window over the number of cells it counts (``count_include_pad``, clipped windows of ``ceil_mode``)."""
    emit = site.emit
    total = emit("ReduceSum", _windows(site, 0), emit.int64([1]), keepdims=0)
    pads = site.attribute("pads", [0, 0, 0, 0])
    assert isinstance(pads, list)
    before, after = (pads[:2], pads[2:]) if site.attribute("count_include_pad", 0) else ([0, 0], [0, 0])
    y, x = (window.counted_taps(b, a) for window, b, a in zip(site.windows, before, after, strict=True))
    if len(set(y)) == len(set(x)) == 1:
        return site.computed(rows=emit("Mul", total, emit.constant(np.array(1 / (y[0] * x[0]), np.float32))))
    along_y = emit("Unsqueeze", _shares(emit, y, site.output.y), emit.int64([2]))
    along_x = emit("Unsqueeze", _shares(emit, x, site.output.x), emit.int64([1]))
    shares = emit("Reshape", emit("Mul", along_y, along_x), emit.int64([-1, 1]))
    return site.computed(rows=emit("Mul", total, shares))


def _windows(site: Site, pad_row: int) -> gs.Variable:
    """[batch * h * w, kernel h * kernel w, C]."""
    y, x = site.windows
    shape = site.emit.int64([-1, y.kernel * x.kernel, site.channels])
    return site.emit("Reshape", site.patches(site.operand, pad_row), shape)


def _shares(emit: Emitter, counts: IntArray, output: Axis) -> gs.Variable:
    """float32 [batch, extent]: one over the counted taps of each output cell along an axis."""
    steps = emit("Range", emit.int32(0), output.extent, emit.int32(1))
    cells = emit("Add", emit("Unsqueeze", output.origin, emit.int64([1])), steps)
    return emit("Gather", emit.constant((1 / np.maximum(counts, 1)).astype(np.float32)), cells, axis=0)
