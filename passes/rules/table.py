"""The table of region rules: what a node does to the box of its input that a patch can change.

One rule an operator family, in the other files of this folder. A rule either returns the region of the node's output or
raises :class:`NoRule` with the reason, and the node then runs dense: on full maps, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.geometry import Spans
from kcompiler.passes.quantised import INTEGERS, ON_INTEGERS, OWN


class NoRule(Exception):
    """The node cannot be made incremental; the message says why, for the report."""


@dataclass(frozen=True, slots=True)
class Region:
    """The box of a map that a patch can change, for every patch origin an axis.

    Attributes:
        channels: of the map, which is [N, channels, y.size, x.size], or if ``last`` [N, y.size, x.size, channels].
        y, x: spans of cells.
        last: whether channels are the last axis of the value. Updated regions are held alike either way.
    """

    channels: int
    y: Spans
    x: Spans
    last: bool = False

    @property
    def channel_axis(self) -> int:
        return 3 if self.last else 1

    @property
    def cell_axes(self) -> tuple[int, int]:
        """Of the value, along y and x."""
        return (1, 2) if self.last else (2, 3)

    @property
    def map(self) -> tuple[int, int]:
        """(height, width)."""
        return self.y.size, self.x.size

    def union(self, other: Region) -> Region:
        return replace(self, y=self.y.union(other.y), x=self.x.union(other.x))

    def capped(self, share: float) -> Region:
        """The same, at most ``share`` of the map's height and of its width (rounded, one cell at the least)."""
        y, x = (spans.capped(max(1, round(share * spans.size))) for spans in (self.y, self.x))
        return replace(self, y=y, x=x)


Rule = Callable[[gs.Node, Sequence[Region | None]], Region]
RULES: dict[str, Rule] = {}
REGION_TYPES = (np.dtype(np.float32), np.dtype(np.bool_), *INTEGERS)
"""Types of the values that can be regions. Truth values are held as zeros and ones, all others as they are."""
WHOLE_MAP = (
    "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "InstanceNormalization", "GroupNormalization",
    "QLinearGlobalAveragePool",
)  # fmt: skip
"""Operators each of whose numbers is made of all cells: what they give changes everywhere."""


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
    if node.op in WHOLE_MAP:
        raise NoRule("takes in the whole map")
    if (node.domain not in (None, "", "ai.onnx") and node.op not in OWN) or node.op not in RULES:
        raise NoRule(f"no region rule for operator {node.op}")
    if len([o for o in node.outputs if not o.is_empty()]) != 1:
        raise NoRule(f"{node.op} with more than one output")
    for value in (*node.inputs, node.outputs[0]):
        if isinstance(value, gs.Constant) or value.is_empty() or value.dtype is None:
            continue
        kind = np.dtype(value.dtype)
        if kind not in REGION_TYPES:
            raise NoRule(f"{value.name} is {kind}, regions are float32")
        if kind in INTEGERS and node.op not in ON_INTEGERS:
            raise NoRule(f"no region rule for {node.op} of {kind}")
    return RULES[node.op](node, regions)


def map_of(node: gs.Node, value: gs.Tensor, *, last: bool = False) -> tuple[int, int, int]:
    """(channels, height, width) of a value that ``node`` reads or makes.

    Raises:
        NoRule: it is not a map of known size.
    """
    shape = value.shape
    if shape is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise NoRule(f"{node.op}: {value.name} is no map of known size (shape {shape})")
    return (shape[3], shape[1], shape[2]) if last else (shape[1], shape[2], shape[3])


def only(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The region of the node's data input, when that is the only input which depends on the image.

    Raises:
        NoRule: others do too, or are not known at compile time.
    """
    first, *others = regions
    if first is None or any(region is not None for region in others):
        raise NoRule(f"{node.op} with weights or parameters computed from the image")
    if any(not isinstance(value, gs.Constant) and not value.is_empty() for value in node.inputs[1:]):
        raise NoRule(f"{node.op} with weights or parameters that are not constant")
    return first


def numbers(node: gs.Node, place: int, attribute: str = "") -> list[int] | None:
    """Whole numbers from the constant input at ``place`` or, before it was an input, from an attribute; None if not given."""
    if len(node.inputs) > place and not node.inputs[place].is_empty():
        return [int(number) for number in np.asarray(node.inputs[place].values).ravel()]
    found = node.attrs.get(attribute)
    return None if found is None else [int(number) for number in found]
