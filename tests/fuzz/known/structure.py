"""Graphs in circles, names twice, values that nobody makes, fields that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import helper

from tests.fuzz.cases import Case
from tests.fuzz.known.making import IMAGE, convolution, files, head, model, plain
from tests.fuzz.known.names import rename


def structure() -> Iterator[Case]:
    circle = [helper.make_node("Add", ["image", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]), *head("b")]
    weight = helper.make_tensor_value_info("weights", 1, [4, 3, 3, 3])
    yield "circle", files(model(circle, []))
    yield "reads itself", files(model([helper.make_node("Add", ["image", "maps"], ["maps"]), *head()], []))
    yield "made twice", files(model([convolution(), convolution(), *head()]))
    yield "made by nobody", files(model([helper.make_node("Add", ["image", "nobody"], ["maps"]), *head()], []))
    yield "output of nobody", files(model([convolution()]))
    yield "output is the image", files(model([convolution(), *head()], output=IMAGE))
    yield "output is a weight", files(model([convolution(), *head()], output=weight))
    yield "node of nothing", files(model([convolution(), *head(), onnx.NodeProto()]))
    for name, edit in EDITS.items():
        made = plain()
        edit(made.graph)
        yield name, files(made)


EDITS: dict[str, Callable[[onnx.GraphProto], object]] = {
    "no output": lambda graph: graph.ClearField("output"),
    "no input": lambda graph: graph.ClearField("input"),
    "no graph name": lambda graph: graph.ClearField("name"),
    "no operator": lambda graph: graph.node[0].ClearField("op_type"),
    "no node outputs": lambda graph: graph.node[0].ClearField("output"),
    "empty output name": lambda graph: graph.node[0].output.__setitem__(0, ""),
    "no node inputs": lambda graph: graph.node[0].ClearField("input"),
    "thousand inputs": lambda graph: graph.node[0].input.extend(["image"] * 1000),
    "nodes of one name": lambda graph: [setattr(node, "name", "same") for node in graph.node],
    "name of 100,000 letters": lambda graph: setattr(graph.node[0], "name", "n" * 100_000),
    "names of newlines": lambda graph: rename(graph, {name: f"{name}\n\x1b[31m" for name in ("image", "maps", "scores")}),
}
