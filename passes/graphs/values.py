"""Queries on the values of a graph: their readers, and which of their sizes are known."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_graphsurgeon as gs


def is_output(graph: gs.Graph, value: gs.Tensor) -> bool:
    """Whether ``value`` is an output of ``graph``. By identity: graphsurgeon compares tensors by name."""
    return any(output is value for output in graph.outputs)


def has_one_reader(graph: gs.Graph, value: gs.Tensor) -> bool:
    """Whether exactly one input of one node reads ``value``, and it is no graph output."""
    return len(value.outputs) == 1 and not is_output(graph, value)


def known_sizes(shape: Sequence[object] | None) -> list[int] | None:
    """The sizes of all axes but the batch, if there is a batch axis and all are known; else None."""
    if not shape:
        return None
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    return sizes if len(sizes) == len(shape) - 1 else None


def numbers_at_least(value: gs.Tensor) -> int:
    """The product of the known sizes, the batch excluded: a lower bound on the elements for one image."""
    return prod(size for size in value.shape[1:] if isinstance(size, int))


def copied(graph: gs.Graph) -> gs.Graph:
    """A copy of a graph, its constants with the same numbers. Graphsurgeon's own forgets which variables are sequences."""
    copy = graph.copy()
    kinds = {name: tensor.type for name, tensor in graph.tensors().items() if isinstance(tensor, gs.Variable)}
    for name, tensor in copy.tensors().items():
        if isinstance(tensor, gs.Variable):
            tensor.type = kinds.get(name, tensor.type)
    return copy
