"""The table of region rules: a rule maps the regions of a node's inputs to that of its output.

There is one rule per operator family, in the other files of this folder. A rule either returns the region of the node's output
or raises :class:`NoRule` with the reason, and the node then runs dense: on full maps, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.graphs.quantised import INTEGERS, ON_INTEGERS, OWN
from kcompiler.passes.regions import cells, channels, quantised, resampling, windows
from kcompiler.passes.regions.region import NoRule, Region

Rule = Callable[[gs.Node, Sequence[Region | None]], Region]
FAMILIES: Sequence[tuple[Rule, tuple[str, ...]]] = (
    (cells.pointwise, cells.POINTWISE),
    (cells.merge, cells.MERGES),
    (channels.concatenation, ("Concat",)),
    (channels.across_channels, ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "LRN", "LayerNormalization")),
    (channels.reduction, channels.REDUCTIONS),
    (channels.selection, ("Gather", "Slice")),
    (channels.product, ("MatMul",)),
    (channels.transposition, ("Transpose",)),
    (windows.sliding_window, windows.SLIDING),
    (resampling.resampling, ("Pad", "Resize", "DepthToSpace")),
    (quantised.cell_by_cell, ("QuantizeLinear", "DequantizeLinear", *quantised.UNARY)),
    (quantised.merge, quantised.MERGES),
    (quantised.concatenation, ("QLinearConcat",)),
)
RULES: Mapping[str, Rule] = {operator: rule for rule, operators in FAMILIES for operator in operators}
assert len(RULES) == sum(len(operators) for _, operators in FAMILIES), "an operator has two region rules"

REGION_TYPES = (np.dtype(np.float32), np.dtype(np.bool_), *INTEGERS)
"""Element types of regions. Booleans are held as float32 zeros and ones, all others in their own type."""
WHOLE_MAP = (
    "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "InstanceNormalization", "GroupNormalization",
    "QLinearGlobalAveragePool",
)  # fmt: skip
"""Operators each of whose outputs depends on all cells, so that a patch changes the whole output."""


def apply_rule(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The region of the first output of ``node``. ``regions`` are those of its inputs; None for inputs independent of the image.

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
        if isinstance(value.dtype, int):  # graphsurgeon's for types that numpy has not
            raise NoRule(f"{value.name} is {TensorProto.DataType.Name(value.dtype)}, regions are float32")
        dtype = np.dtype(value.dtype)
        if dtype not in REGION_TYPES:
            raise NoRule(f"{value.name} is {dtype}, regions are float32")
        if dtype in INTEGERS and node.op not in ON_INTEGERS:
            raise NoRule(f"no region rule for {node.op} of {dtype}")
    return RULES[node.op](node, regions)
