"""The nodes that ``inspect`` lists: equal reasons once, and what the file has, not what normalisation made."""

from __future__ import annotations

import pytest
from networks import save
from rich.console import Console

from kcompiler.commands.inspect_nodes import NAME, node_table, where_it_ends
from kcompiler.options import Options
from kcompiler.pipeline import analyse
from kcompiler.runtime.bundle.report import NodeReport


def node(name, operator="Relu", reason="", follows="", source=None, **others):
    return NodeReport(
        node=name, operator=operator, source=source, incremental=not reason, lowering="" if reason else "gemm", reason=reason,
        follows=follows, map=(4, 4), extent=None if reason else (2, 2), share=1.0 if reason else 0.25, flops=1_000_000, **others,
    )  # fmt: skip


class Report:
    def __init__(self, *nodes):
        self.nodes = nodes


def printed(report):
    console = Console(width=250)
    with console.capture() as capture:
        console.print(node_table(report))
    return [" ".join(line.split()) for line in capture.get().splitlines()[1:]]


def test_dense_nodes_of_one_reason_share_a_row():
    report = Report(
        node("a", "Conv"),
        node("b", "Softmax", "no rule for Softmax"),
        node("c", "Conv", "reads b_out, which changes everywhere", "b_out"),
        node("d", "Relu", "reads c_out, which changes everywhere", "c_out"),
        node("e", "Conv", "reads d_out, which is dense", "d_out"),
        node("f", "Add", "has no rule"),
        node("g", "Add", "has no rule"),
    )
    conv, softmax, following, adds = printed(report)
    assert conv.startswith("a Conv incremental 4 x 4 2 x 2 25%")
    assert softmax.endswith("no rule for Softmax")
    assert following.startswith("c to e 3 nodes: Conv, Relu dense all")
    assert following.endswith("3.0 3.0 reads what is dense")
    assert adds.startswith("f to g 2 nodes: Add dense all")
    assert where_it_ends(report).splitlines() == [
        "dense from b: Softmax: no rule for Softmax; full maps are made there, so that it stays exact",
        "dense from f: 2 nodes (Add): has no rule; full maps are made there, so that it stays exact",
    ]


def test_a_reason_is_told_once_whatever_the_operators():
    report = Report(*(node(f"n{number}", operator, "is slower") for number, operator in enumerate("ABCCD")))
    assert len(printed(report)) == 1
    assert where_it_ends(report).startswith("dense from n0: 5 nodes (C, A, B, ...): is slower")


def test_nodes_are_named_as_in_the_file_and_left_out_if_they_are_not_in_it():
    report = Report(
        node("HardSigmoid_1", "HardSigmoid", source="swish"),
        node("Mul_1", "Mul", source="swish"),
        node("Transpose_7", "Transpose", source=""),
        node("of an earlier version"),
        node("x" * NAME + "/last", source="x" * NAME + "/last"),
    )
    rows = printed(report)
    assert [row.split()[0] for row in rows[:2]] == ["swish", "swish"]
    assert rows[2].startswith("of an earlier version Relu")
    assert rows[3].split()[0] == "\u2026" + "x" * (NAME - 6) + "/last"


@pytest.mark.parametrize("name", ["gated", "blended", "residual"])
def test_gates_that_end_regions_are_named_with_what_helps(name, tmp_path):
    report = analyse(save(name, tmp_path / "model.onnx"), Options(patch=(4, 4)), tmp_path).report
    assert [("--freeze-gates" in note) for note in report.notes] == ([True] if name != "residual" else [])
    assert all(one.source for one in report.nodes if one.operator in ("Conv", "Relu"))
