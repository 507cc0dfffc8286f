"""The plan: which nodes are incremental, and why the others are dense. Nothing is changed here; the rewriting reads the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from kcompiler.passes.regions.propagate import EXACT, Propagation, Step, Thresholds, propagate
from kcompiler.passes.regions.region import Region

FROZEN = "is frozen: kept as for the uncovered image"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one node. ``reason`` is empty for an incremental node."""

    node: str
    operator: str
    incremental: bool
    reason: str


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


def make_plan(graph: gs.Graph, patch: tuple[int, int], dense_share: float = 1.0, thresholds: Thresholds = EXACT) -> Plan:
    """The plan of a graph whose regions are propagated for this; see :func:`plan_for`."""
    return plan_for(propagate(graph, patch, thresholds), dense_share)


def plan_for(propagation: Propagation, dense_share: float = 1.0) -> Plan:
    """A node is incremental if its output has a region and all that it reads is incremental.

    Args:
        propagation: the regions.
        dense_share: a node whose mean region covers more than this share of its map runs dense.
    """
    incremental, decisions = {propagation.image}, []
    for step in propagation.steps:
        reason = step.reason or _too_much(step, incremental, dense_share)
        if not reason:
            incremental.add(step.output)
        if step.node not in propagation.needed:
            decisions.append(Decision(step.node, step.operator, incremental=False, reason=FROZEN))
        else:
            decisions.append(Decision(step.node, step.operator, not reason, reason))
    return Plan(
        propagation.image, propagation.patch, propagation.regions, frozenset(incremental), tuple(decisions), all_dense=False,
        thresholds=propagation.thresholds, frozen=propagation.frozen, needed=propagation.needed,
    )  # fmt: skip


def whole_plan(propagation: Propagation, reason: str) -> Plan:
    """All nodes dense, for one reason."""
    image = propagation.image
    decisions = tuple(Decision(step.node, step.operator, incremental=False, reason=reason) for step in propagation.steps)
    return Plan(
        image, propagation.patch, {image: propagation.regions[image]}, frozenset({image}), decisions, all_dense=True,
        needed=frozenset(step.node for step in propagation.steps),
    )  # fmt: skip


def _too_much(step: Step, incremental: set[str], dense_share: float) -> str:
    """Why a node whose output has a region runs dense all the same, if so."""
    dense = [name for name in step.reads if name not in incremental]
    if dense:
        return f"reads {dense[0]}, which is dense"
    return f"the region covers {step.share:.0%} of the map" if step.share > dense_share else ""
