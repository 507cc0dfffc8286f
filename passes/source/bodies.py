"""Readers of values in model protos with bodies (If, Loop, Scan), which may read outer values."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from kcompiler.passes.graphs.names import fresh_name


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of a node, not recursively."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def read_names(graph: onnx.GraphProto) -> set[str]:
    """Names of all values that nodes of a graph or of its bodies read, and of its outputs."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for body in bodies(node):
            names |= read_names(body)
    return names


def is_read(graph: onnx.GraphProto, name: str) -> bool:
    """Whether a node of the graph or of a body reads the value ``name``."""
    return any(name in node.input or any(name in read_names(body) for body in bodies(node)) for node in graph.node)


def rename_reads(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Renames ``old`` to ``new`` in the inputs of all nodes of a graph and of its bodies; graph outputs keep their names."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
        for body in bodies(node):
            if old in _own_names(body):
                continue  # an inner value of the same name shadows it
            rename_reads(body, old, new)
            out = unused(body, f"{new}/out")
            if any(value.name == old for value in body.output):
                body.node.append(onnx.helper.make_node("Identity", [new], [out]))
            for value in body.output:
                if value.name == old:
                    value.name = out


def unused(graph: onnx.GraphProto, stem: str) -> str:
    """``stem``, or ``stem`` and a number, that no value of the graph or of its bodies has as its name."""
    return fresh_name(stem, all_names(graph))


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph and its bodies read or define."""
    names = _own_names(graph) | read_names(graph)
    for node in graph.node:
        for body in bodies(node):
            names |= all_names(body)
    return names


def _own_names(graph: onnx.GraphProto) -> set[str]:
    """Names that a body defines: they shadow outer values."""
    outputs = {name for node in graph.node for name in node.output}
    return outputs | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
