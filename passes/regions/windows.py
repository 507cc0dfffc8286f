"""Sliding windows: convolution, pooling and SpaceToDepth."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.quantised import PADDING, WEIGHTS, zero_point
from kcompiler.passes.regions.geometry import Window
from kcompiler.passes.regions.quantised import check_pool
from kcompiler.passes.regions.region import NoRule, Region, map_of, only

SLIDING = ("Conv", "MaxPool", "AveragePool", "LpPool", "SpaceToDepth", "QLinearConv", "QLinearAveragePool")

AXES = 4
"""Of the weights of a convolution of maps."""


def slides(node: gs.Node) -> bool:
    """Whether the node is a sliding window, so that :func:`windows_of` applies."""
    return node.op in SLIDING


def windows_of(node: gs.Node) -> tuple[Window, Window]:
    """The (y, x) windows of a convolution or pool with explicit pads, or of a SpaceToDepth.

    Raises:
        NoRule: the window is not two-dimensional.
    """
    (_, *inputs), (_, *outputs) = map_of(node, node.inputs[0]), map_of(node, node.outputs[0])
    if node.op == "SpaceToDepth":
        block = int(node.attrs["blocksize"])
        y, x = (Window(inputs[axis], outputs[axis], block, block) for axis in (0, 1))
        return y, x
    if node.op in WEIGHTS and len(node.inputs[WEIGHTS[node.op]].shape or ()) != AXES:
        raise NoRule(f"{node.op} with weights of {len(node.inputs[WEIGHTS[node.op]].shape or ())} axes, not {AXES}")
    kernel = node.attrs.get("kernel_shape") or list(node.inputs[WEIGHTS[node.op]].shape[2:])
    strides = node.attrs.get("strides") or [1, 1]
    dilations = node.attrs.get("dilations") or [1, 1]
    pads = node.attrs.get("pads") or [0, 0, 0, 0]
    y, x = (Window(inputs[axis], outputs[axis], kernel[axis], strides[axis], dilations[axis], pads[axis]) for axis in (0, 1))
    return y, x


def sliding_window(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The region of outputs whose windows touch the input region, clipped to the output map."""
    region = only(node, regions)
    if region.last:
        raise NoRule(f"{node.op} of a map whose channels are last")
    if node.op in PADDING and zero_point(node.inputs[0]) is None:
        raise NoRule(f"{node.op} of {node.inputs[0].name}, which others pad with another zero point")
    if node.op == "QLinearAveragePool":
        check_pool(node)
    y, x = windows_of(node)
    return Region(map_of(node, node.outputs[0])[0], y.changed(region.y), x.changed(region.x))
