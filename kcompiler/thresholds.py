"""Validates thresholds by node: each must name a node whose region can be capped."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from kcompiler.options import Options
from kcompiler.passes.choosing.choice import Chooser
from kcompiler.runtime.errors import UsageError

SUGGESTED = 3
"""Number of names that an error suggests."""


def check_node_thresholds(path: Path, options: Options, source_nodes: Collection[str], chooser: Chooser) -> None:
    """Checks that every node with its own threshold in ``options`` is a node whose region is recomputed.

    Args:
        path: path of the model, for messages.
        options: compile options.
        source_nodes: names of the nodes in the source file.
        chooser: the exact variant's.

    Raises:
        UsageError: no node has that name, or the node was folded into others, or it runs dense.
    """
    reasons = {decision.node: chooser.dense or decision.reason for decision in chooser.everything.decisions}
    capped = [name for name, reason in reasons.items() if not reason]
    for name in (name for approximation in options.approximations for name in approximation.thresholds.nodes):
        if reasons.get(name) == "":
            continue
        if name in reasons:
            what = f"node {name} is not recomputed by regions ({reasons[name]}), so there is nothing to cap"
        elif name in source_nodes:
            what = f"node {name} of the file was folded into its neighbours, or removed, before regions are looked at"
        else:
            what = f"there is no node {name!r}"
        near = get_close_matches(name, capped, SUGGESTED, cutoff=0.3) or capped[:SUGGESTED]
        suggestion = f"nodes with a region are {', '.join(near)}, ..." if near else "no node has a region"
        raise UsageError(f"{path}: threshold by node: {what}; {suggestion} ('kcompiler inspect' lists all)")
