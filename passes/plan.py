"""The plan: which nodes are incremental, and why the others are dense. Nothing is changed here; the rewriting reads the plan."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from kcompiler.passes.regions.propagate import EXACT, Propagation, Regions, Step, Thresholds, propagate

FROZEN = "is frozen: kept as for the uncovered image"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a node is incremental.

    Attributes:
        node: its name.
        operator: its type.
        reason: why it is dense, empty for an incremental node.
        follows: name of the value that it reads and that is the reason, empty if the node itself is.
    """

    node: str
    operator: str
    incremental: bool
    reason: str
    follows: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Regions):
    """The regions of one graph for one patch size, and which of them are recomputed.

    Attributes:
        incremental: names of the values kept as regions, the image among them.
        decisions: per node, in graph order.
        all_dense: whether the source graph is kept whole, and runs on covered images.
    """

    incremental: frozenset[str]
    decisions: tuple[Decision, ...]
    all_dense: bool = False


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
        follows = step.follows or next((name for name in step.reads if name not in incremental), "")
        reason = step.reason or _too_much(step, follows, dense_share)
        if not reason:
            incremental.add(step.output)
        if step.node not in propagation.needed:
            decisions.append(Decision(step.node, step.operator, incremental=False, reason=FROZEN))
        else:
            decisions.append(Decision(step.node, step.operator, not reason, reason, follows))
    return Plan(
        image=propagation.image, patch=propagation.patch, regions=propagation.regions, thresholds=propagation.thresholds,
        frozen=propagation.frozen, needed=propagation.needed, incremental=frozenset(incremental), decisions=tuple(decisions),
    )  # fmt: skip


def whole_plan(propagation: Propagation, reason: str) -> Plan:
    """All nodes dense, for one reason."""
    image = propagation.image
    decisions = tuple(Decision(step.node, step.operator, incremental=False, reason=reason) for step in propagation.steps)
    return Plan(
        image=image, patch=propagation.patch, regions={image: propagation.regions[image]}, thresholds=EXACT, frozen={},
        needed=frozenset(step.node for step in propagation.steps), incremental=frozenset({image}), decisions=decisions,
        all_dense=True,
    )  # fmt: skip


def _too_much(step: Step, dense: str, dense_share: float) -> str:
    """Why a node whose output has a region, and which may read a value that is ``dense``, runs dense all the same, if so."""
    if dense:
        return f"reads {dense}, which is dense"
    return f"the region covers {step.share:.0%} of the map" if step.share > dense_share else ""
