"""The plan: which nodes are incremental, and why the others are dense. It changes no graph; ``rewriting`` carries it out."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from kcompiler.passes.regions.propagate import EXACT, Propagation, Regions, Step, Thresholds, propagate

FROZEN = "is frozen: kept as for the uncovered image"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a node is incremental.

    Attributes:
        node: name.
        operator: type.
        incremental: whether its region is recomputed; otherwise it runs on full maps.
        reason: why it is dense, empty for an incremental node.
        follows: name of the input that is the reason, empty if the node itself is.
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
        incremental: names of the values held as regions, including the image.
        decisions: one per node, in graph order.
        all_dense: whether the whole source graph runs unchanged on covered images.
    """

    incremental: frozenset[str]
    decisions: tuple[Decision, ...]
    all_dense: bool = False


def make_plan(graph: gs.Graph, patch: tuple[int, int], dense_share: float = 1.0, thresholds: Thresholds = EXACT) -> Plan:
    """Propagates the patch through ``graph``, and plans by :func:`plan_for`."""
    return plan_for(propagate(graph, patch, thresholds), dense_share)


def plan_for(propagation: Propagation, dense_share: float = 1.0) -> Plan:
    """A plan in which a node is incremental if its output has a region and all its inputs with regions are incremental.

    Args:
        propagation: the regions.
        dense_share: a node runs dense if its mean region covers more than this fraction of its map.
    """
    incremental, decisions = {propagation.image}, []
    for step in propagation.steps:
        follows = step.follows or next((name for name in step.reads if name not in incremental), "")
        reason = step.reason or _reason(step, follows, dense_share)
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
    """A plan with all nodes dense, all for the same ``reason``."""
    image = propagation.image
    decisions = tuple(Decision(step.node, step.operator, incremental=False, reason=reason) for step in propagation.steps)
    return Plan(
        image=image, patch=propagation.patch, regions={image: propagation.regions[image]}, thresholds=EXACT, frozen={},
        needed=frozenset(step.node for step in propagation.steps), incremental=frozenset({image}), decisions=decisions,
        all_dense=True,
    )  # fmt: skip


def _reason(step: Step, dense: str, dense_share: float) -> str:
    """Why a node whose output has a region runs dense: it reads the value ``dense`` (if any), or its region is too large."""
    if dense:
        return f"reads {dense}, which is dense"
    return f"the region covers {step.share:.0%} of the map" if step.share > dense_share else ""
