"""Resampling on regions: padding, cropping, resizing, and blocks of cells that become channels or come of them."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.geometry import Taps, Window
from kcompiler.passes.index import WINDOWS, Axis, Reads, outer
from kcompiler.passes.lowering.channels import take_channels
from kcompiler.passes.lowering.site import Site, Updated
from kcompiler.passes.lowering.table import lowering
from kcompiler.passes.rules.channels import sliced_axes
from kcompiler.passes.rules.resampling import taps_of
from kcompiler.passes.work import Shape, Work


def _gathered(shape: Shape) -> Work:
    numbers = shape.cells * shape.taps * shape.channels
    return Work(moved=shape.union + 3 * numbers, nodes=20 / shape.batch, held=2 * numbers)


@lowering("taps", "Pad", "Resize", work=_gathered)
def resample(site: Site) -> Updated:
    """The cells that each output is made of, gathered and, where it is not a mere copy, weighted and added up."""
    emit, operand = site.emit, site.operand
    taps = taps_of(site.node, site.region)
    outputs = [_cells(site, axis) for axis in (site.output.y, site.output.x)]
    y, x = (_reads(site, one, cells) for one, cells in zip(taps, outputs, strict=True))
    read = operand.read(emit, y, x)
    shape = emit.int64([-1, operand.updated.channels])
    if all(one.copies for one in taps):
        return site.computed(rows=emit("Reshape", read, shape))
    along = [emit("Gather", emit.constant(one.weights), cells, axis=0) for one, cells in zip(taps, outputs, strict=True)]
    weights = outer(emit, "Mul", y, along[0], x, along[1], emit.constant(np.array(1, np.float32)))
    weighted = emit("Mul", read, emit("Unsqueeze", weights, emit.int64([5])))
    return site.computed(rows=emit("Reshape", emit("ReduceSum", weighted, emit.int64([3, 4]), keepdims=0), shape))


@lowering("taps or channels", "Slice", work=_gathered)
def crop_or_select(site: Site) -> Updated:
    """Cells or channels: whichever axes it is along."""
    return take_channels(site) if sliced_axes(site.node) == {site.region.channel_axis} else resample(site)


@lowering("blocks", "SpaceToDepth", work=_gathered)
def space_to_depth(site: Site) -> Updated:
    """The cells of a block side by side, cell by cell, which is the operator's order of channels."""
    return site.computed(rows=site.emit("Reshape", site.patches(site.operand), site.emit.int64([-1, site.channels])))


@lowering("blocks", "DepthToSpace", work=_gathered)
def depth_to_space(site: Site) -> Updated:
    """The cell that an output lies in, and of its channels those of the place in the block: all others times zero."""
    emit, block = site.emit, int(site.node.attrs["blocksize"])
    outputs = [_cells(site, axis) for axis in (site.output.y, site.output.x)]
    y, x = (_reads(site, one, cells) for one, cells in zip(taps_of(site.node, site.region), outputs, strict=True))
    read = site.operand.read(emit, y, x)
    first = site.attribute("mode", "DCR") == "DCR"  # the place in the block is the slower index of the channels
    sizes = [block, block, site.channels] if first else [site.channels, block, block]
    cells = emit("Reshape", read, emit.int64([-1, *sizes]))
    places = [
        emit("Gather", emit.constant(np.eye(block, dtype=np.float32)[np.arange(axis.size) % block]), one, axis=0)
        for one, axis in zip(outputs, (site.output.y, site.output.x), strict=True)
    ]
    place = outer(emit, "Mul", y, places[0], x, places[1], emit.constant(np.array(1, np.float32)))
    mask = emit("Reshape", place, emit.int64([-1, block, block, 1] if first else [-1, 1, block, block]))
    axes = emit.int64([1, 2] if first else [2, 3])
    return site.computed(rows=emit("ReduceSum", emit("Mul", cells, mask), axes, keepdims=0))


def _cells(site: Site, axis: Axis) -> gs.Variable:
    """The cells of the region along an axis: int32 [batch or 1, extent]."""
    steps = site.emit("Range", site.emit.int32(0), axis.extent, site.emit.int32(1))
    return site.emit("Add", site.emit("Unsqueeze", axis.origin, site.emit.int64([1])), steps)


def _reads(site: Site, taps: Taps, outputs: gs.Tensor) -> Reads:
    """Of every output, the cells it is made of: [batch or 1, extent, taps]."""
    cells = site.emit("Gather", site.emit.int32(taps.cells), outputs, axis=0)
    return Reads(cells, Window.identity(taps.inputs), WINDOWS, overhang=1)
