"""Renaming the tensors of a graph, in the bodies of its nodes too."""

from __future__ import annotations

from collections.abc import Callable

import onnx


def rename_tensors(graph: onnx.GraphProto, rename: Callable[[str], str]) -> None:
    """Gives every tensor and every node of ``graph`` the name that ``rename`` returns for its own, in place.

    An optional input that is left out, whose name is empty, stays so.
    """
    for node in graph.node:
        node.name = rename(node.name)
        for names in (node.input, node.output):
            names[:] = [rename(name) if name else "" for name in names]
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                rename_tensors(body, rename)
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = rename(value.name)
