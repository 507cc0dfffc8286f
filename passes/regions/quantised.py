"""Quantised maps: QuantizeLinear and DequantizeLinear, activations, sums and products of two maps, concatenation, pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.quantised import is_single
from kcompiler.passes.regions.region import NoRule, Region, map_of, only

UNARY = ("QLinearSigmoid", "QLinearLeakyRelu")
MERGES = ("QLinearAdd", "QLinearMul")
OPERANDS = (0, 3)
"""Input indices of the two operands; each is followed by its scale and zero point."""


def cell_by_cell(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The region of the first input, unchanged. Its scale must be per tensor."""
    region = only(node, regions)
    if not is_single(node.inputs[1:]):
        raise NoRule(f"{node.op} with a scale for each channel")
    return region


def merge(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The union box of two quantised maps of equal size. One operand may be a constant per channel."""
    operands = [regions[place] for place in OPERANDS]
    present = [region for region in operands if region is not None]
    if any(
        not isinstance(v, gs.Constant) and not v.is_empty() for v, region in zip(node.inputs, regions, strict=True) if not region
    ):
        raise NoRule(f"{node.op} with scales or an operand that are not constant")
    union = present[0]
    channels, *size = map_of(node, node.outputs[0], last=union.last)
    for place, region in zip(OPERANDS, operands, strict=True):
        if region is None:
            _check_numbers(node, node.inputs[place], channels, last=union.last)
        elif region.last != union.last or region.channels != channels or [*region.map] != size:
            raise NoRule(f"{node.op} broadcasts the map {node.inputs[place].name}")
        else:
            union = union.union(region)
    return union


def _check_numbers(node: gs.Node, value: gs.Tensor, channels: int, *, last: bool) -> None:
    """Checks that a constant operand is a scalar or a value per channel.

    Raises:
        NoRule: it is neither.
    """
    shape = [*value.shape]
    aligned = [1] * (4 - len(shape)) + shape
    if len(shape) > 4 or any(size not in (1, channels if axis == (3 if last else 1) else 1) for axis, size in enumerate(aligned)):
        raise NoRule(f"{node.op} with a constant of shape {shape}, which is no number a channel")


def concatenation(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """QLinearConcat along the channels: the union box. The inputs are output scale, zero point, then (map, scale, zero point)."""
    operands = [regions[place] for place in range(2, len(regions), 3)]
    present = [region for region in operands if region is not None]
    if len(present) != len(operands):
        raise NoRule("QLinearConcat with a constant")
    union = present[0]
    if any(region.last != union.last for region in present) or node.attrs["axis"] % 4 != union.channel_axis:
        raise NoRule(f"QLinearConcat along axis {node.attrs['axis']}, not along the channels")
    channels, *_ = map_of(node, node.outputs[0], last=union.last)
    for region in present[1:]:
        union = union.union(region)
    return replace(union, channels=channels)


def check_pool(node: gs.Node) -> None:
    """Checks that all windows of a QLinearAveragePool count the same cells: regions contain padding, which then counts.

    Raises:
        NoRule: windows at the edges count fewer cells, or channels are last.
    """
    pads = node.attrs.get("pads") or [0]
    if np.any(pads) and not node.attrs.get("count_include_pad", 0):
        raise NoRule("QLinearAveragePool whose windows at the edges count fewer cells")
    if node.attrs.get("ceil_mode", 0):
        raise NoRule("QLinearAveragePool in ceil_mode")
    if node.attrs.get("channels_last", 0):
        raise NoRule("QLinearAveragePool of a map whose channels are last")
