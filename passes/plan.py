"""Analysis: which nodes are incremental, over which regions. Nothing is changed here; the rewriting reads the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.geometry import Spans
from kcompiler.passes.rules import NoRule, Region, apply_rule


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one node. ``reason`` is empty for an incremental node."""

    node: str
    operator: str
    incremental: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much of each map is recomputed at most: the paper's tau, by node. 1 everywhere is exact.

    What a patch changes further away keeps its cached value (projective field thresholding, SIGMOD 2019, section 4.1).

    Attributes:
        everywhere: share of a map's height and width, above 0, up to 1.
        nodes: other shares, by node name.
    """

    everywhere: float = 1.0
    nodes: Mapping[str, float] = field(default_factory=dict)

    def of(self, node: str) -> float:
        return self.nodes.get(node, self.everywhere)


EXACT = Thresholds()


@dataclass(frozen=True, slots=True)
class Plan:
    """The analysis of one graph for one patch size.

    Attributes:
        image: name of the image input.
        patch: (height, width) in pixels.
        regions: per value name, the region wherever rules reach, also behind dense nodes.
        incremental: names of the values kept as regions, the image among them.
        decisions: per node, in graph order.
        all_dense: whether the source graph is kept whole, and only the image is covered incrementally.
        thresholds: that capped the regions.
    """

    image: str
    patch: tuple[int, int]
    regions: Mapping[str, Region]
    incremental: frozenset[str]
    decisions: tuple[Decision, ...]
    all_dense: bool
    thresholds: Thresholds = EXACT


def make_plan(
    graph: gs.Graph, patch: tuple[int, int], dense_share: float = 1.0, dense: str = "", thresholds: Thresholds = EXACT
) -> Plan:
    """Propagates the patch's region through ``graph`` (topologically sorted, normalised, one image input).

    Args:
        graph: the normalised model.
        patch: (height, width).
        dense_share: a node whose mean region covers more than this share of its map runs dense.
        dense: why every node is to run dense, if so.
        thresholds: how large regions may be.
    """
    image = graph.inputs[0]
    _, channels, height, width = image.shape
    regions = {image.name: Region(channels, Spans.of_patch(height, patch[0]), Spans.of_patch(width, patch[1]))}
    incremental = {image.name}
    depends = {image.name}
    decisions = []
    for node in graph.nodes:
        if dense:
            reason = dense
        elif not any(value.name in depends for value in node.inputs):
            reason = "does not depend on the image"
        else:
            depends |= {value.name for value in node.outputs if not value.is_empty()}
            reason = _propagate(node, regions, incremental, depends, dense_share, thresholds)
        if not reason:
            incremental.add(node.outputs[0].name)
        decisions.append(Decision(node.name, node.op, not reason, reason))
    return Plan(image.name, patch, regions, frozenset(incremental), tuple(decisions), bool(dense), thresholds)


def _propagate(
    node: gs.Node,
    regions: dict[str, Region],
    incremental: set[str],
    depends: set[str],
    dense_share: float,
    thresholds: Thresholds,
) -> str:
    """Adds the region of the node's output where a rule gives one; returns why the node must run dense, or ''."""
    unknown = [value.name for value in node.inputs if value.name in depends and value.name not in regions]
    if unknown:
        return f"reads {unknown[0]}, which changes everywhere"
    try:
        region = apply_rule(node, [regions.get(value.name) for value in node.inputs]).capped(thresholds.of(node.name))
    except NoRule as why:
        return str(why)
    regions[node.outputs[0].name] = region
    dense = [value.name for value in node.inputs if value.name in depends and value.name not in incremental]
    if dense:
        return f"reads {dense[0]}, which is dense"
    share = mean_share(region)
    return f"the region covers {share:.0%} of the map" if share > dense_share else ""


def mean_share(region: Region) -> float:
    """The mean share of the map that the region covers, over all origins of whole patches."""
    y, x = (float(np.mean(spans.lengths[spans.whole])) / spans.size for spans in (region.y, region.x))
    return y * x
