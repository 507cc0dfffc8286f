"""Specs between stages: what compilation makes keeps them, what is broken by hand is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from networks import Builder, save
from source_file import NEVER_DENSE

from kcompiler.options import Options
from kcompiler.passes.spec import BrokenSpec, check_incremental, check_normalised, check_plan
from kcompiler.pipeline import analyse, compile_file


@pytest.fixture
def analysed(tmp_path):
    return analyse(save("residual", tmp_path / "model.onnx"), Options(patch=(3, 3), dense_share=NEVER_DENSE), tmp_path)


def first(graph: gs.Graph, operator: str) -> gs.Node:
    return next(node for node in graph.nodes if node.op == operator)


def two_inputs(graph):
    graph.inputs.append(gs.Variable("other", np.float32, [1]))


def other_type(graph):
    graph.inputs[0].dtype = np.dtype(np.float64)


def unknown_size(graph):
    graph.inputs[0].shape = ["batch", 3, "height", 20]


def old(graph):
    graph.opset = 12


def our_name(graph):
    first(graph, "Conv").outputs[0].name = "table/conv"


def unsorted(graph):
    graph.nodes.reverse()


def twice_named(graph):
    graph.nodes[1].name = graph.nodes[0].name


def same_value(graph):
    graph.nodes[1].outputs[0].name = graph.nodes[0].outputs[0].name


def automatic(graph):
    first(graph, "Conv").attrs["auto_pad"] = "SAME_UPPER"


def output_of_nothing(graph):
    graph.outputs = [gs.Variable("nothing", np.float32, ["batch", 5])]


@pytest.mark.parametrize(
    "broken",
    [two_inputs, other_type, unknown_size, old, our_name, unsorted, twice_named, same_value, automatic, output_of_nothing],
)
def test_what_is_not_normalised_is_found(analysed, broken):
    graph = analysed.normalised.copy()
    check_normalised(graph)
    broken(graph)
    with pytest.raises(BrokenSpec):
        check_normalised(graph)


def test_plans_that_contradict_themselves_are_found(analysed):
    graph, plan = analysed.graph, analysed.plan
    check_plan(graph, plan)
    conv = first(graph, "Conv").outputs[0].name
    region = plan.regions[conv]
    outside = replace(region, y=replace(region.y, stop=region.y.stop + region.y.size))
    for broken in (
        replace(plan, decisions=plan.decisions[1:]),
        replace(plan, decisions=(replace(plan.decisions[0], reason="because"), *plan.decisions[1:])),
        replace(plan, incremental=plan.incremental - {conv}),
        replace(plan, incremental=plan.incremental | {"another"}),
        replace(plan, regions={**plan.regions, conv: outside}),
    ):
        with pytest.raises(BrokenSpec):
            check_plan(graph, broken)


def no_such_input(graph):
    graph.inputs.append(gs.Variable("image", np.float32, [1]))


@pytest.mark.parametrize("broken", [no_such_input, unsorted, twice_named, output_of_nothing])
def test_what_is_not_an_incremental_graph_is_found(analysed, broken):
    check_incremental(analysed.graph, analysed.rewritten)
    graph = analysed.rewritten.graph.copy()
    broken(graph)
    with pytest.raises(BrokenSpec):
        check_incremental(analysed.graph, replace(analysed.rewritten, graph=graph))


def test_padding_by_name_of_an_operator_that_runs_dense_is_left_to_it(tmp_path):
    b = Builder()
    weights = b.weight(4, 3, 3, 3)
    maps = b.conv("image", 4, pads=[1, 1, 1, 1])
    wide = b.node("ConvTranspose", maps, weights, channels=3, strides=[2, 2], auto_pad="SAME_UPPER")
    onnx.save(b.model(b.relu(wide), 12, 12), tmp_path / "model.onnx")
    bundle = compile_file(tmp_path / "model.onnx", Options(patch=(3, 3), dense_share=NEVER_DENSE))
    assert "ConvTranspose" in {node.operator for node in bundle.report.nodes if not node.incremental}
