"""A graph under construction: nodes and initializers as ONNX records, which bodies of loops need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kcompiler.runtime.arrays import AnyArray


class Builder:
    """Nodes and initializers under construction; names of tensors stand for them.

    Attributes:
        prefix: of all names that are made here.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Adds a node with one output, called ``name`` if that is given, and returns the output's name."""
        node = f"{self.prefix}{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name or node], node, **attributes))
        return name or node

    def several(self, operator: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Adds a node with ``count`` outputs, and returns their names."""
        node = f"{self.prefix}{operator}_{len(self.nodes)}"
        outputs = [f"{node}/{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, node, **attributes))
        return outputs

    def constant(self, values: AnyArray | Sequence[int] | int) -> str:
        """Adds an initializer; numbers that are no array are int64."""
        array = values if isinstance(values, np.ndarray) else np.asarray(values, np.int64)
        name = f"{self.prefix}constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: float) -> str:
        """Adds a float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def row(self, value: str) -> str:
        """A scalar as a tensor of one element, which bounds of slices are."""
        return self("Reshape", value, self.constant([1]))

    def part(self, value: str, start: str, stop: str) -> str:
        """``value[start:stop]`` along the first axis; the bounds are scalars."""
        return self("Slice", value, self.row(start), self.row(stop), self.constant([0]))
