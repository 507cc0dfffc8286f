"""Model protos with bodies (of If, Loop, Scan): who reads what, also from inside of them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of a node, not those inside them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def read_names(graph: onnx.GraphProto) -> set[str]:
    """Names of all values that nodes of a graph, or of bodies in it, read, and of those that it puts out."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for body in bodies(node):
            names |= read_names(body)
    return names


def is_read(graph: onnx.GraphProto, name: str) -> bool:
    """Whether a node, or one in a body, reads the value ``name``."""
    return any(name in node.input or any(name in read_names(body) for body in bodies(node)) for node in graph.node)


def rename_reads(graph: onnx.GraphProto, old: str, new: str) -> None:
    """What nodes of a graph, and of bodies in it, read as ``old`` they read as ``new``; outputs stay as they are."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
        for body in bodies(node):
            if old in _own_names(body):
                continue  # another value of the same name
            rename_reads(body, old, new)
            for value in body.output:
                if value.name == old:
                    body.node.append(onnx.helper.make_node("Identity", [new], [f"{new}/out"]))
                    value.name = f"{new}/out"


def _own_names(graph: onnx.GraphProto) -> set[str]:
    made = {name for node in graph.node for name in node.output}
    return made | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
