"""Functions that call each other, bodies in bodies, loops and chains: more work than the file is large."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from tests.fuzz.cases import Case
from tests.fuzz.known.making import MODEL, files, head, model


def doubling_functions() -> Iterator[Case]:
    """Each of them calls the one before it twice."""
    for times in (25, 200):
        functions = [
            helper.make_function(
                "hostile",
                f"f{number}",
                ["x"],
                ["z"],
                _calls(number),
                [helper.make_opsetid("", 18), helper.make_opsetid("hostile", 1)],
            )
            for number in range(times)
        ]
        nodes = [helper.make_node(f"f{times - 1}", ["image"], ["maps"], domain="hostile"), *head()]
        yield f"functions that double {times} times", files(model(nodes, functions=functions, opsets=(("", 18), ("hostile", 1))))
    for name, called in (("itself", "f0"), ("each other", "f1")):
        functions = [
            helper.make_function("hostile", f"f{number}", ["x"], ["y"], [helper.make_node(other, ["x"], ["y"], domain="hostile")],
                                 [helper.make_opsetid("", 18), helper.make_opsetid("hostile", 1)])
            for number, other in enumerate((called, "f0"))
        ]  # fmt: skip
        nodes = [helper.make_node("f0", ["image"], ["maps"], domain="hostile"), *head()]
        yield f"functions that call {name}", files(model(nodes, functions=functions, opsets=(("", 18), ("hostile", 1))))


def _calls(number: int) -> list[onnx.NodeProto]:
    if not number:
        return [helper.make_node("Relu", ["x"], ["z"])]
    calls = ((f"f{number - 1}", read, made) for read, made in (("x", "y"), ("y", "z")))
    return [helper.make_node(name, [read], [made], domain="hostile") for name, read, made in calls]


def long_chains() -> Iterator[Case]:
    for count in (300, 1000, 110_000):
        nodes = [helper.make_node("Relu", [f"v{number}"], [f"v{number + 1}"]) for number in range(count)]
        nodes[0].input[0] = "image"
        yield f"{count} Relus", files(model([*nodes, *head(f"v{count}")], []))
    wide = [helper.make_node("Relu", ["image"], [f"v{number}"]) for number in range(2000)]
    joined = helper.make_node("Sum", [f"v{number}" for number in range(2000)], ["maps"])
    yield "2000 Relus side by side", files(model([*wide, joined, *head()], []))


def deep_bodies() -> Iterator[Case]:
    """Bodies of If in each other: as deep as protobuf reads, and deeper."""
    other = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["e"])], "other", [], [helper.make_tensor_value_info("e", 1, None)]
    )
    for depth in (10, 20, 30):
        inner = helper.make_node("Relu", ["image"], ["y0"])
        try:
            for level in range(depth):
                body = helper.make_graph([inner], f"b{level}", [], [helper.make_tensor_value_info(f"y{level}", 1, None)])
                inner = helper.make_node("If", ["c"], [f"y{level + 1}"], then_branch=body, else_branch=other)
            made = model([inner, *head(f"y{depth}")], [numpy_helper.from_array(np.array(True), "c")])
        except DecodeError:
            continue
        yield f"{depth} bodies in each other", files(made)
    data = b""
    for _ in range(3000):
        data = _field(7, _field(1, _field(5, _field(6, data))))  # graph, node, attribute, graph
    yield "3000 bodies in each other", {MODEL: data}


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    length, size = bytearray(), len(data)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


def endless_loops() -> Iterator[Case]:
    """Loops of no count, or of 2^40, over the image and over a constant, which folding would run."""
    relu, go_on = helper.make_node("Relu", ["v"], ["w"]), helper.make_node("Identity", ["go"], ["on"])
    reads = [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("go", 9, [])]
    body = helper.make_graph(
        [relu, go_on], "body", [*reads, helper.make_tensor_value_info("v", 1, None)],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("w", 1, None)],
    )  # fmt: skip
    values = {"yes": np.array(True), "many": np.array(1 << 40), "zero": np.zeros(1, np.float32)}
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    for count in ("", "many"):
        loop = helper.make_node("Loop", [count, "yes", "image"], ["maps"], body=body)
        yield f"endless loop {count}", files(model([loop, *head()], constants))
        loop = helper.make_node("Loop", [count, "yes", "zero"], ["c"], body=body)
        add = helper.make_node("Add", ["image", "c"], ["maps"])
        yield f"endless loop of a constant {count}", files(model([loop, add, *head()], constants))
