"""Analysis: which nodes are incremental, over which regions. Nothing is changed here; the rewriting reads the plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import reads
from kcompiler.passes.graphs.quantised import gives_same_bits, quantised_later
from kcompiler.passes.regions.cells import GATE, MERGES
from kcompiler.passes.regions.geometry import Spans
from kcompiler.passes.regions.region import NoRule, Region
from kcompiler.passes.regions.rules import apply_rule

FROZEN = "is frozen: kept as for the uncovered image"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one node. ``reason`` is empty for an incremental node."""

    node: str
    operator: str
    incremental: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much of each map is recomputed at most: the paper's tau, by node. 1 everywhere, and nothing frozen, is exact.

    What a patch changes further away keeps its cached value (projective field thresholding, SIGMOD 2019, section 4.1).

    Attributes:
        everywhere: share of a map's height and width, above 0, up to 1.
        nodes: other shares, by node name.
        freeze_gates: whether a number a channel that is made of the whole map (squeeze and excite, global context) stays what it
            is for the uncovered image where it meets a map.
    """

    everywhere: float = 1.0
    nodes: Mapping[str, float] = field(default_factory=dict)
    freeze_gates: bool = False

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
        all_dense: whether the source graph is kept whole, and runs on covered images.
        thresholds: that capped the regions.
        frozen: channels of the gates that are frozen, by value name.
        needed: names of the nodes that something is made of that is not frozen.
    """

    image: str
    patch: tuple[int, int]
    regions: Mapping[str, Region]
    incremental: frozenset[str]
    decisions: tuple[Decision, ...]
    all_dense: bool
    thresholds: Thresholds = EXACT
    frozen: Mapping[str, int] = field(default_factory=dict)
    needed: frozenset[str] = frozenset()


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
    frozen: dict[str, int] = {}
    stepped = quantised_later(graph)
    for node in graph.nodes:
        behind = next((stepped[value.name] for value in node.outputs if value.name in stepped), "")
        if dense:
            reason = dense
        elif not any(value.name in depends for value in node.inputs):
            reason = "does not depend on the image"
        elif behind and not gives_same_bits(node):
            depends |= {value.name for value in node.outputs if not value.is_empty()}
            reason = f"float32 sums that {behind} (QuantizeLinear) rounds to steps, of which another order may tip one"
        else:
            if thresholds.freeze_gates:
                frozen |= _gates(node, regions, depends)
            depends |= {value.name for value in node.outputs if not value.is_empty()}
            reason = _propagate(node, regions, incremental, depends, dense_share, thresholds, frozen)
        if not reason:
            incremental.add(node.outputs[0].name)
        decisions.append(Decision(node.name, node.op, not reason, reason))
    needed = _needed(graph, frozen)
    told = tuple(d if d.node in needed else replace(d, incremental=False, reason=FROZEN) for d in decisions)
    return Plan(image.name, patch, regions, frozenset(incremental), told, bool(dense), thresholds, frozen, needed)


def _gates(node: gs.Node, regions: Mapping[str, Region], depends: Set[str]) -> dict[str, int]:
    """Channels of the inputs that are one cell made of the image, where ``node`` brings them together with a map."""
    if node.op not in MERGES or not any(value.name in regions for value in node.inputs):
        return {}
    gates = {}
    for value in node.inputs:
        shape = value.shape
        if value.name not in depends or value.name in regions or shape is None or len(shape) != 4:
            continue
        if isinstance(shape[1], int) and shape[2:] == [1, 1]:
            gates[value.name] = shape[1]
        elif isinstance(shape[3], int) and shape[1:3] == [1, 1]:
            gates[value.name] = shape[3]
    return gates


def _needed(graph: gs.Graph, frozen: Collection[str]) -> frozenset[str]:
    """Names of the nodes that the outputs are made of, not counting what only frozen values are made of."""
    wanted = {value.name for value in graph.outputs}
    needed = set()
    for node in reversed(graph.nodes):
        if any(value.name in wanted for value in node.outputs):
            needed.add(node.name)
            wanted |= {value.name for value in reads(node) if value.name not in frozen}
    return frozenset(needed)


def _propagate(
    node: gs.Node,
    regions: dict[str, Region],
    incremental: set[str],
    depends: Set[str],
    dense_share: float,
    thresholds: Thresholds,
    frozen: Mapping[str, int],
) -> str:
    """Adds the region of the node's output where a rule gives one; returns why the node must run dense, or ''."""
    gates = [value.name for value in node.inputs if value.name in frozen]
    unknown = [v.name for v in node.inputs if v.name in depends and v.name not in regions and v.name not in gates]
    if unknown:
        return f"reads {unknown[0]}, which changes everywhere"
    try:
        known = [GATE if value.name in gates else regions.get(value.name) for value in node.inputs]
        region = apply_rule(node, known).capped(thresholds.of(node.name))
    except NoRule as why:
        return str(why)
    regions[node.outputs[0].name] = region
    dense = [v.name for v in node.inputs if v.name in depends and v.name not in incremental and v.name not in gates]
    if dense:
        return f"reads {dense[0]}, which is dense"
    share = mean_share(region)
    return f"the region covers {share:.0%} of the map" if share > dense_share else ""


def mean_share(region: Region) -> float:
    """The mean share of the map that the region covers, over all origins of whole patches."""
    y, x = (float(np.mean(spans.lengths[spans.whole])) / spans.size for spans in (region.y, region.x))
    return y * x
