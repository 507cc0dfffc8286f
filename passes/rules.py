"""Region rules: what a node does to the box of its input that a patch can change.

One table, one rule an operator family. A rule either returns the region of the node's output or raises
:class:`NoRule` with the reason, and the node then runs dense: on full maps, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.geometry import Spans, Window


class NoRule(Exception):
    """The node cannot be made incremental; the message says why, for the report."""


@dataclass(frozen=True, slots=True)
class Region:
    """The box of a [N, channels, y.size, x.size] value that a patch can change, for every patch origin an axis."""

    channels: int
    y: Spans
    x: Spans

    def union(self, other: Region) -> Region:
        return replace(self, y=self.y.union(other.y), x=self.x.union(other.x))

    def capped(self, share: float) -> Region:
        """The same, at most ``share`` of the map's height and of its width (rounded, one cell at the least)."""
        y, x = (spans.capped(max(1, round(share * spans.size))) for spans in (self.y, self.x))
        return replace(self, y=y, x=x)


Rule = Callable[[gs.Node, Sequence[Region | None]], Region]
RULES: dict[str, Rule] = {}
MIXED = ("Dropout",)
"""Operators whose parameters are of other types, and do not matter at inference."""


def region_rule(*operators: str) -> Callable[[Rule], Rule]:
    """Enters the decorated function into the table for ``operators``."""

    def enter(rule: Rule) -> Rule:
        for operator in operators:
            assert operator not in RULES, f"two region rules for {operator}"
            RULES[operator] = rule
        return rule

    return enter


def apply_rule(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The region of ``node``'s first output. ``regions`` follows the inputs, None where an input does not depend on the image.

    Raises:
        NoRule: no rule for the operator, or the rule does not cover this node.
    """
    if node.domain not in (None, "", "ai.onnx") or node.op not in RULES:
        raise NoRule(f"no region rule for operator {node.op}")
    if len([o for o in node.outputs if not o.is_empty()]) != 1:
        raise NoRule(f"{node.op} with more than one output")
    for value in (*node.inputs, node.outputs[0]):
        if not value.is_empty() and value.dtype is not None and np.dtype(value.dtype) != np.float32 and node.op not in MIXED:
            raise NoRule(f"{value.name} is {np.dtype(value.dtype)}, regions are float32")
    return RULES[node.op](node, regions)


def output_map(node: gs.Node) -> tuple[int, int, int]:
    """(channels, height, width) of the node's output.

    Raises:
        NoRule: the output is not a map of known size.
    """
    shape = node.outputs[0].shape
    if shape is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise NoRule(f"{node.op} output is no [N, C, H, W] map of known size (shape {shape})")
    return shape[1], shape[2], shape[3]


def windows_of(node: gs.Node) -> tuple[Window, Window]:
    """The (y, x) windows of a Conv or pooling node whose pads are explicit.

    Raises:
        NoRule: the window is not two-dimensional.
    """
    shape, (_, *outputs) = node.inputs[0].shape, output_map(node)
    if shape is None or len(shape) != 4:
        raise NoRule(f"{node.op} input is no [N, C, H, W] map (shape {shape})")
    kernel = node.attrs.get("kernel_shape") or list(node.inputs[1].shape[2:])
    strides = node.attrs.get("strides") or [1, 1]
    dilations = node.attrs.get("dilations") or [1, 1]
    pads = node.attrs.get("pads") or [0, 0, 0, 0]
    y, x = (Window(shape[2 + axis], outputs[axis], kernel[axis], strides[axis], dilations[axis], pads[axis]) for axis in (0, 1))
    return y, x


@region_rule("Conv", "MaxPool", "AveragePool")
def sliding_window(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """Spans whose window touches the changed span, clipped to the output map."""
    region = only(node, regions)
    if any(not isinstance(value, gs.Constant) and not value.is_empty() for value in node.inputs[1:]):
        raise NoRule(f"{node.op} with weights that are not constant")
    y, x = windows_of(node)
    return Region(output_map(node)[0], y.changed(region.y), x.changed(region.x))


@region_rule("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign",
             "Clip", "Identity", "Dropout", "Abs", "Neg", "Exp", "Sqrt", "Erf", "Gelu", "Mish", "BatchNormalization")  # fmt: skip
def pointwise(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """Cells map to cells: the span passes. All inputs but the first must be constants."""
    region = only(node, regions)
    constants = node.inputs[1:]
    if any(not isinstance(value, gs.Constant) and not value.is_empty() for value in constants):
        raise NoRule(f"{node.op} with parameters that are not constant")
    if node.op == "BatchNormalization" and node.attrs.get("training_mode", 0):
        raise NoRule("BatchNormalization in training mode")
    if node.op == "Dropout" and len(constants) > 2 and bool(np.any(constants[2].values)):
        raise NoRule("Dropout in training mode")
    return region


@region_rule("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "PRelu")
def merge(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """Elementwise on maps of one shape, or with a scalar or per-channel constant: the union box of the inputs."""
    channels, height, width = output_map(node)
    union: Region | None = None
    for value, region in zip(node.inputs, regions, strict=True):
        if region is None:
            per_channel(node, value, channels)
        elif (region.channels, region.y.size, region.x.size) != (channels, height, width):
            raise NoRule(f"{node.op} broadcasts the map {value.name}")
        else:
            union = region if union is None else union.union(region)
    assert union is not None, "some input depends on the image"
    return union


@region_rule("Concat")
def concatenation(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """Channels side by side: the union box of the inputs."""
    channels, *_ = output_map(node)
    if node.attrs["axis"] not in (1, -3):
        raise NoRule(f"Concat along axis {node.attrs['axis']}, not along the channels")
    present = [region for region in regions if region is not None]
    if len(present) != len(regions):
        raise NoRule("Concat with a constant")
    union = present[0]
    for region in present[1:]:
        union = union.union(region)
    return replace(union, channels=channels)


def only(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The region of the node's data input, when that is the only input which depends on the image."""
    first, *others = regions
    if first is None or any(region is not None for region in others):
        raise NoRule(f"{node.op} with weights or parameters computed from the image")
    return first


def per_channel(node: gs.Node, value: gs.Tensor, channels: int) -> None:
    """Checks that a constant operand of a merge is a scalar or one number a channel.

    Raises:
        NoRule: it is neither.
    """
    if not isinstance(value, gs.Constant):
        raise NoRule(f"{node.op} with the computed operand {value.name}")
    shape = tuple(value.shape)
    aligned = (1,) * (4 - len(shape)) + shape
    if len(shape) > 4 or aligned not in ((1, 1, 1, 1), (1, channels, 1, 1)):
        raise NoRule(f"{node.op} with a constant of shape {shape}, neither scalar nor one number a channel")
