"""The nodes in the output of ``kcompiler inspect``: what becomes of each, and where incremental inference ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.table import Table

from kcompiler.runtime.bundle.report import NodeReport, Report

BAR = 12
"""Length of a full bar, in characters."""
HALF = 0.5
NAME = 44
"""Characters of a node's name that fit into the table."""
REASON = 30
"""Least width of the column of reasons, which wrap."""
LISTED = 3
"""Operators that a group of nodes is described by."""
COLUMNS = ("node", "operator", "runs", "map", "largest region", "mean share", "", "MFLOP", "recomputed", "lowering, or why dense")


def node_table(report: Report) -> Table:
    """A row a node of the file; nodes that are dense for one reason after another share a row."""
    table = Table(*COLUMNS, box=None)
    table.columns[0].no_wrap = True
    table.columns[-1].min_width = REASON
    for nodes in _grouped([node for node in report.nodes if node.source != ""]):
        table.add_row(*(_row(nodes[0]) if len(nodes) == 1 else _row_of_group(nodes)))
    return table


def name_of(node: NodeReport) -> str:
    """Of the node of the file that it stems from, if that is known."""
    return node.source or node.node


def why(node: NodeReport) -> str:
    """The reason of a dense node, alike for all that follow from another node."""
    return "reads what is dense" if node.follows else node.reason


def _grouped(nodes: Sequence[NodeReport]) -> Iterator[list[NodeReport]]:
    """Dense nodes in a row of equal reasons together, each other node alone."""
    for (reason, _), alike in groupby(nodes, key=lambda node: (why(node), node.updated)):
        group = list(alike)
        if reason and not group[0].updated:
            yield group
        else:
            yield from ([node] for node in group)


def _end(name: str, length: int) -> str:
    """The end of a long name, which tells nodes apart where its beginning does not."""
    return name if len(name) <= length else "\u2026" + name[1 - length :]


def _row(node: NodeReport) -> tuple[str, ...]:
    share = node.share if node.incremental else 1.0
    return (
        _end(name_of(node), NAME),
        node.operator,
        "incremental" if node.incremental else "dense",
        f"{node.map[0]} x {node.map[1]}" if node.map is not None else "",
        f"{node.extent[0]} x {node.extent[1]}" if node.extent is not None else "all",
        f"{node.share:.0%}",
        "\u2588" * round(share * BAR) + "\u2591" * (BAR - round(share * BAR)),
        f"{node.flops / 1e6:.1f}" if node.flops else "",
        f"{node.flops * share / 1e6:.1f}" if node.flops else "",
        _how(node) or node.reason,
    )


def _row_of_group(nodes: Sequence[NodeReport]) -> tuple[str, ...]:
    flops = f"{sum(node.flops for node in nodes) / 1e6:.1f}"
    listed = " to ".join(_end(name_of(node), NAME // 2 - 2) for node in (nodes[0], nodes[-1]))
    return listed, f"{len(nodes)} nodes: {_operators(nodes)}", "dense", "", "all", "", "\u2588" * BAR, flops, flops, why(nodes[0])


def _operators(nodes: Sequence[NodeReport]) -> str:
    """The operators of several nodes, the most frequent first."""
    counts = [operator for operator, _ in Counter(node.operator for node in nodes).most_common()]
    return ", ".join(counts[:LISTED]) + (", ..." if len(counts) > LISTED else "")


def _how(node: NodeReport) -> str:
    """The lowering of an incremental node, and what is not as usual in how it is held."""
    layout = node.layout if node.layout not in ("", "rows") else ""
    parts = f"{node.microbatches} micro-batches" if node.microbatches > 1 else ""
    cells = "copies the cells read" if node.copies else ""
    return ", ".join(filter(None, (node.lowering, layout, cells, parts)))


def where_it_ends(report: Report) -> str:
    """Where regions exceed half of their map, where incremental inference ends, and why: a line a reason."""
    lines = []
    large = next((node for node in report.nodes if node.incremental and node.share > HALF), None)
    if large is not None:
        lines.append(f"from {name_of(large)} ({large.operator}) on, regions cover more than half of their map")
    reasons: dict[tuple[str, bool], list[NodeReport]] = {}
    for node in report.nodes:
        if not node.incremental and not node.follows:
            reasons.setdefault((node.reason, node.updated), []).append(node)
    lines += [_ending(nodes, reason, updated=updated) for (reason, updated), nodes in reasons.items()]
    return "\n".join(lines) or "incremental to the end"


def _ending(nodes: Sequence[NodeReport], reason: str, *, updated: bool) -> str:
    first = name_of(nodes[0])
    at = f"{first}: {nodes[0].operator}" if len(nodes) == 1 else f"{first}: {len(nodes)} nodes ({_operators(nodes)})"
    if updated:
        return f"incremental ends at {at}: {reason}"
    return f"dense from {at}: {reason}; full maps are made there, so that it stays exact"
