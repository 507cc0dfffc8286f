"""What is asked of values of a graph: who reads them, and which of their sizes are known."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_graphsurgeon as gs


def is_output(graph: gs.Graph, value: gs.Tensor) -> bool:
    """Whether ``value`` is an output of ``graph``. By identity: tensors of graphsurgeon are equal if their names are."""
    return any(output is value for output in graph.outputs)


def has_one_reader(graph: gs.Graph, value: gs.Tensor) -> bool:
    """Whether one node reads ``value``, in one place, and nothing else does: it is no output."""
    return len(value.outputs) == 1 and not is_output(graph, value)


def known_sizes(shape: Sequence[object] | None) -> list[int] | None:
    """Sizes behind the batch, if there is one and all are known; else None."""
    if not shape:
        return None
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    return sizes if len(sizes) == len(shape) - 1 else None


def numbers_at_least(value: gs.Tensor) -> int:
    """The product of the sizes behind the batch that are known."""
    return prod(size for size in value.shape[1:] if isinstance(size, int))
