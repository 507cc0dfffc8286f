"""Resampling on regions: Pad, Slice, Resize, and blocks of cells moved to channels (SpaceToDepth) or back (DepthToSpace)."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emission.box import Axis, first_of
from kcompiler.passes.emission.reads import chosen_reads
from kcompiler.passes.lowering.channels import take_channels
from kcompiler.passes.lowering.layout import Layout, Surroundings, as_read, none_gathered, rows_in_plain_order, windows_gathered
from kcompiler.passes.lowering.operand import Operand, Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import Shape, Work
from kcompiler.passes.regions.channels import sliced_axes
from kcompiler.passes.regions.resampling import taps_of
from kcompiler.runtime.arrays import AnyArray


def _gathered(shape: Shape) -> Work:
    elements = shape.cells * shape.taps * shape.samples * shape.channels
    return Work(moved=shape.union + 3 * elements, nodes=20 / shape.batch, held=2 * elements)


def resample(site: Site) -> Updated:
    """Gathers the taps of each output cell and, unless each output copies one input cell, sums them with weights."""
    emit, operand = site.emit, site.operand
    taps = taps_of(site.node, site.region)
    read = _read(site, operand)
    shape = emit.int64([-1, operand.updated.channels])
    if all(along.copies for along in taps):
        return site.computed(rows=emit("Reshape", read, shape))
    weights = emit(
        "Mul", *(_by_output(site, axis, along.weights) for axis, along in zip((site.output.y, site.output.x), taps, strict=True))
    )
    weighted = emit("Mul", read, emit("Unsqueeze", weights, emit.int64([5])))
    return site.computed(rows=emit("Reshape", emit("ReduceSum", weighted, emit.int64([3, 4]), keepdims=0), shape))


def crop_or_select(site: Site) -> Updated:
    """A Slice along the channels, or along the cells."""
    return take_channels(site) if _selects(site) else resample(site)


def _selects(around: Surroundings) -> bool:
    """Whether a Slice selects channels, of all cells."""
    return sliced_axes(around.node) == {around.region.channel_axis}


def _layout_of_slice(around: Surroundings) -> Layout:
    return as_read(around) if _selects(around) else rows_in_plain_order(around)


def space_to_depth(site: Site) -> Updated:
    """im2col of the blocks: cell-major, as in the operator's order of output channels."""
    return site.computed(rows=site.emit("Reshape", site.patches(site.operand), site.emit.int64([-1, site.channels])))


def depth_to_space(site: Site) -> Updated:
    """The input cell of each output's block; a mask selects the channels that belong to the output's place in the block."""
    emit, block = site.emit, int(site.node.attrs["blocksize"])
    read = _read(site, site.operand)
    place_first = site.attribute("mode", "DCR") == "DCR"  # the place in the block is the outer index of the channels
    sizes = [block, block, site.channels] if place_first else [site.channels, block, block]
    cells = emit("Reshape", read, emit.int64([-1, *sizes]))
    places = (np.eye(block, dtype=np.float32)[np.arange(axis.size) % block] for axis in (site.output.y, site.output.x))
    place = emit("Mul", *(_by_output(site, axis, eye) for axis, eye in zip((site.output.y, site.output.x), places, strict=True)))
    mask = emit("Reshape", place, emit.int64([-1, block, block, 1] if place_first else [-1, 1, block, block]))
    axes = emit.int64([1, 2] if place_first else [2, 3])
    return site.computed(rows=emit("ReduceSum", emit("Mul", cells, mask), axes, keepdims=0))


def _read(site: Site, operand: Operand) -> gs.Variable:
    """The taps of each output cell, gathered: [batch, h, w, taps y, taps x, C]."""
    y, x = (
        chosen_reads(_by_output(site, axis, taps.cells.astype(np.int32)), taps.inputs, axis)
        for axis, taps in zip((site.output.y, site.output.x), taps_of(site.node, site.region), strict=True)
    )
    return operand.read(site.emit, y, x)


def _by_output(site: Site, axis: Axis, values: AnyArray) -> gs.Variable:
    """``values`` [outputs, taps] at the region's outputs: [batch, h, 1, taps, 1] along y, [batch, 1, w, 1, taps] along x."""
    assert axis.number is not None, "a region is computed, not a whole map"
    emit, along_y = site.emit, axis.along == 0
    steps = first_of(emit, np.arange(axis.size), axis.extent(emit), [-1, 1])
    outputs = emit("Add", axis.places.origins(axis.number, 3 if along_y else 4), steps)
    return emit("Gather", emit.constant(values[:, :, None] if along_y else values), outputs, axis=0)


LOWERINGS = (
    Lowering("taps", ("Pad", "Resize"), resample, rows_in_plain_order, work=_gathered, gathered=none_gathered),
    Lowering("taps or channels", ("Slice",), crop_or_select, _layout_of_slice, work=_gathered, gathered=none_gathered),
    Lowering("blocks", ("SpaceToDepth",), space_to_depth, rows_in_plain_order, work=_gathered, gathered=windows_gathered),
    Lowering("blocks", ("DepthToSpace",), depth_to_space, rows_in_plain_order, work=_gathered, gathered=none_gathered),
)
