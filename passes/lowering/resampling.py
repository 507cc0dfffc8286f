"""Resampling on regions: padding, cropping, resizing, and blocks of cells that become channels or come of them."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emission.box import Axis, first_of
from kcompiler.passes.emission.reads import chosen_reads
from kcompiler.passes.lowering.channels import take_channels
from kcompiler.passes.lowering.layout import Layout, Surroundings, as_read, rows_in_plain_order
from kcompiler.passes.lowering.operand import Operand, Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import Shape, Work
from kcompiler.passes.regions.channels import sliced_axes
from kcompiler.passes.regions.resampling import taps_of
from kcompiler.runtime.arrays import AnyArray


def _gathered(shape: Shape) -> Work:
    numbers = shape.cells * shape.taps * shape.samples * shape.channels
    return Work(moved=shape.union + 3 * numbers, nodes=20 / shape.batch, held=2 * numbers)


def resample(site: Site) -> Updated:
    """The cells that each output is made of, gathered and, where it is not a mere copy, weighted and added up."""
    emit, operand = site.emit, site.operand
    taps = taps_of(site.node, site.region)
    read = _read(site, operand)
    shape = emit.int64([-1, operand.updated.channels])
    if all(one.copies for one in taps):
        return site.computed(rows=emit("Reshape", read, shape))
    weights = emit(
        "Mul", *(_by_output(site, axis, one.weights) for axis, one in zip((site.output.y, site.output.x), taps, strict=True))
    )
    weighted = emit("Mul", read, emit("Unsqueeze", weights, emit.int64([5])))
    return site.computed(rows=emit("Reshape", emit("ReduceSum", weighted, emit.int64([3, 4]), keepdims=0), shape))


def crop_or_select(site: Site) -> Updated:
    """Cells or channels: whichever axes it is along."""
    return take_channels(site) if _selects(site) else resample(site)


def _selects(around: Surroundings) -> bool:
    """Whether it takes channels, of all cells."""
    return sliced_axes(around.node) == {around.region.channel_axis}


def _layout_of_slice(around: Surroundings) -> Layout:
    return as_read(around) if _selects(around) else rows_in_plain_order(around)


def space_to_depth(site: Site) -> Updated:
    """The cells of a block side by side, cell by cell, which is the operator's order of channels."""
    return site.computed(rows=site.emit("Reshape", site.patches(site.operand), site.emit.int64([-1, site.channels])))


def depth_to_space(site: Site) -> Updated:
    """The cell that an output lies in, and of its channels those of the place in the block: all others times zero."""
    emit, block = site.emit, int(site.node.attrs["blocksize"])
    read = _read(site, site.operand)
    first = site.attribute("mode", "DCR") == "DCR"  # the place in the block is the slower index of the channels
    sizes = [block, block, site.channels] if first else [site.channels, block, block]
    cells = emit("Reshape", read, emit.int64([-1, *sizes]))
    places = (np.eye(block, dtype=np.float32)[np.arange(axis.size) % block] for axis in (site.output.y, site.output.x))
    place = emit("Mul", *(_by_output(site, axis, one) for axis, one in zip((site.output.y, site.output.x), places, strict=True)))
    mask = emit("Reshape", place, emit.int64([-1, block, block, 1] if first else [-1, 1, block, block]))
    axes = emit.int64([1, 2] if first else [2, 3])
    return site.computed(rows=emit("ReduceSum", emit("Mul", cells, mask), axes, keepdims=0))


def _read(site: Site, operand: Operand) -> gs.Variable:
    """The cells that each output is made of: [batch, h, w, taps y, taps x, C]."""
    y, x = (
        chosen_reads(_by_output(site, axis, one.cells.astype(np.int32)), one.inputs, axis)
        for axis, one in zip((site.output.y, site.output.x), taps_of(site.node, site.region), strict=True)
    )
    return operand.read(site.emit, y, x)


def _by_output(site: Site, axis: Axis, values: AnyArray) -> gs.Variable:
    """``values`` [outputs, taps] of the region's outputs: [batch, y, 1, taps, 1] along y, [batch, 1, x, 1, taps] along x."""
    assert axis.number is not None, "a region is computed, not a whole map"
    emit, along_y = site.emit, axis.along == 0
    steps = first_of(emit, np.arange(axis.size), axis.extent(emit), [-1, 1])
    outputs = emit("Add", axis.places.origins(axis.number, 3 if along_y else 4), steps)
    return emit("Gather", emit.constant(values[:, :, None] if along_y else values), outputs, axis=0)


LOWERINGS = (
    Lowering("taps", ("Pad", "Resize"), resample, rows_in_plain_order, work=_gathered),
    Lowering("taps or channels", ("Slice",), crop_or_select, _layout_of_slice, work=_gathered),
    Lowering("blocks", ("SpaceToDepth",), space_to_depth, rows_in_plain_order, work=_gathered),
    Lowering("blocks", ("DepthToSpace",), depth_to_space, rows_in_plain_order, work=_gathered),
)
