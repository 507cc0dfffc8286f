"""Operators across the channels of a cell: spans are unchanged, the number of channels may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.regions.region import NoRule, Region, map_of, numbers, only
from kcompiler.passes.regions.resampling import resampled
from kcompiler.runtime.arrays import IntArray

REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
)  # fmt: skip
TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def concatenation(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """Concat along the channels: the union box of the inputs."""
    present = [region for region in regions if region is not None]
    if len(present) != len(regions):
        raise NoRule("Concat with a constant")
    union, axis = present[0], node.attrs["axis"] % 4
    if any(region.last != union.last for region in present) or axis != union.channel_axis:
        raise NoRule(f"Concat along axis {node.attrs['axis']}, not along the channels")
    channels, *_ = map_of(node, node.outputs[0], last=union.last)
    for region in present[1:]:
        union = union.union(region)
    return replace(union, channels=channels)


def across_channels(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """Normalisation or softmax over the channels of each cell: the region is unchanged."""
    region = only(node, regions)
    if node.op == "LRN":
        if region.last:
            raise NoRule("LRN of a map whose channels are last")
        return region
    axis = node.attrs.get("axis", -1) % 4
    if axis != region.channel_axis or (node.op == "LayerNormalization" and not region.last):
        raise NoRule(f"{node.op} along axis {axis}, which is more than the channels of a cell")
    return region


def reduction(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """A reduction over the channels of each cell, with keepdims."""
    region, axes = only(node, regions), numbers(node, 1, "axes")
    if axes is None or [axis % 4 for axis in axes] != [region.channel_axis] or not node.attrs.get("keepdims", 1):
        raise NoRule(f"{node.op} over the axes {axes if axes is not None else 'all'}, which is more than the channels of a cell")
    return replace(region, channels=1)


def summed_axes(node: gs.Node) -> list[int] | None:
    """The sorted axes (of four) that a mean or sum reduces; None for other nodes, and where the axes are not constant."""
    if node.op == "GlobalAveragePool":
        return [2, 3]
    if node.op not in ("ReduceMean", "ReduceSum") or (len(node.inputs) > 1 and not isinstance(node.inputs[1], gs.Constant)):
        return None
    axes = numbers(node, 1, "axes")
    return sorted(axis % 4 for axis in axes) if axes is not None else None


def selection(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """A Gather or Slice of channels, or a Slice of cells (cropping)."""
    region = only(node, regions)
    if node.op == "Slice" and sliced_axes(node) <= {*region.cell_axes}:
        return resampled(node, region)
    return replace(region, channels=len(selected(node, region)))


def sliced_axes(node: gs.Node) -> set[int]:
    axes = numbers(node, 3) or range(len(np.ravel(node.inputs[1].values)))
    return {axis % 4 for axis in axes}


def selected(node: gs.Node, region: Region) -> IntArray:
    """Indices of the channels that a Gather or Slice selects, int64 [channels of the output].

    Raises:
        NoRule: it selects along another axis.
    """
    every = np.arange(region.channels)
    if node.op == "Gather":
        axis, indices = node.attrs.get("axis", 0) % 4, np.asarray(node.inputs[1].values)
        if axis != region.channel_axis or indices.ndim != 1:
            raise NoRule(f"Gather along axis {axis} by indices of {indices.ndim} axes, not along the channels")
        if not ((indices >= -region.channels) & (indices < region.channels)).all():
            raise NoRule(f"Gather of channels by indices that the {region.channels} channels do not have")
        chosen: IntArray = every[indices]
        return chosen
    axes = sliced_axes(node)
    if axes != {region.channel_axis}:
        raise NoRule(f"Slice along the axes {sorted(axes)}, not along the channels or the cells alone")
    (start,), (stop,), (step,) = numbers(node, 1), numbers(node, 2), numbers(node, 4) or [1]  # type: ignore[misc]
    taken: IntArray = every[slice(start, None if stop < -region.channels else stop, step)]
    return taken


def product(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """A MatMul of channels-last cells with a constant matrix, which is a 1x1 convolution."""
    region = only(node, regions)
    if not region.last or len(node.inputs[1].shape) != 2:
        raise NoRule("MatMul that is not of the channels of each cell with a constant matrix")
    return replace(region, channels=map_of(node, node.outputs[0], last=True)[0])


def transposition(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """A Transpose from NCHW to channels last, or back."""
    region, order = only(node, regions), list(node.attrs.get("perm") or [])
    if order != (TO_FIRST if region.last else TO_LAST):
        raise NoRule(f"Transpose by {order}, neither channels first to channels last nor back")
    map_of(node, node.outputs[0])
    return replace(region, last=not region.last)
