"""Emission of ONNX nodes, with hash-consing: equal nodes and equal constants exist once.

Interning shares work between values of the same geometry: two layers with equal spans and windows emit the same index
arithmetic and get the same tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.names import fresh_name
from kcompiler.runtime.arrays import AnyArray

INTERNED_BYTES = 1 << 20  # larger arrays are weights, which are interned by identity, not by content


class Emitter:
    """Appends nodes to a graphsurgeon graph, interned by operator, inputs and attributes."""

    def __init__(self, graph: gs.Graph, reserved: Iterable[str] = ()) -> None:
        """For ``graph``, which may have nodes already. No new value gets a ``reserved`` name: those are kept by :meth:`copy`."""
        self.graph = graph
        self._nodes: dict[object, gs.Variable] = {}
        self._constants: dict[object, gs.Constant] = {}
        self._values: set[str] = {*graph.tensors(), *reserved}
        self._node_names: set[str] = {node.name for node in graph.nodes}

    def fresh(self, stem: str) -> str:
        """A name that neither a tensor nor a node has: ``stem``, or ``stem`` with a number."""
        while (name := fresh_name(stem, self._values)) in self._node_names:
            pass  # taken by now: the next number is tried
        self._node_names.add(name)
        return name

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> gs.Variable:
        assert name not in self._values, name  # a node may have it: its name is the user's
        self._values.add(name)
        variable = gs.Variable(name, dtype=dtype, shape=list(shape))
        self.graph.inputs.append(variable)
        return variable

    def constant(self, values: AnyArray, name: str = "constant") -> gs.Constant:
        values = np.asarray(values)
        content = values.tobytes() if values.nbytes <= INTERNED_BYTES else (values.ctypes.data, values.strides)
        key = (values.dtype.str, values.shape, content)
        if key not in self._constants:
            self._constants[key] = gs.Constant(fresh_name(name, self._values), values)
        return self._constants[key]

    def int32(self, values: int | Sequence[int] | AnyArray) -> gs.Constant:
        return self.constant(np.asarray(values, dtype=np.int32))

    def int64(self, values: int | Sequence[int] | AnyArray) -> gs.Constant:
        return self.constant(np.asarray(values, dtype=np.int64))

    def __call__(
        self, op: str, *inputs: gs.Tensor | None, name: str | None = None, domain: str | None = None, **attributes: object
    ) -> gs.Variable:
        """The only output of a node ``op`` of ``domain`` (None is standard ONNX). An equal node emitted before is reused."""
        tensors = [value if value is not None else gs.Variable.empty() for value in inputs]
        key = (
            op,
            domain,
            tuple(id(value) if value is not None else None for value in inputs),
            repr(sorted(attributes.items())),
        )
        if key not in self._nodes:
            output = gs.Variable(fresh_name(name or op, self._values))
            node = gs.Node(
                op,
                name=fresh_name(output.name, self._node_names),
                attrs=attributes,
                inputs=tensors,
                outputs=[output],
                domain=domain,
            )
            self.graph.nodes.append(node)
            self._nodes[key] = output
        return self._nodes[key]

    def several(self, op: str, count: int, *inputs: gs.Tensor) -> list[gs.Variable]:
        """All ``count`` outputs of a node ``op``."""
        first = self(op, *inputs)
        (node,) = first.inputs
        while len(node.outputs) < count:
            node.outputs.append(gs.Variable(fresh_name(op, self._values)))
        return list(node.outputs)

    def copy(self, node: gs.Node, inputs: Sequence[gs.Tensor]) -> list[gs.Variable]:
        """Copies a node of the source graph with other ``inputs``; returns its outputs, which keep their (reserved) names."""
        outputs = [
            gs.Variable(o.name, o.dtype, o.shape, o.type) if not o.is_empty() else gs.Variable.empty() for o in node.outputs
        ]
        self.graph.nodes.append(
            gs.Node(
                node.op,
                name=fresh_name(node.name or node.op, self._node_names),
                attrs=dict(node.attrs),
                inputs=list(inputs),
                outputs=outputs,
                domain=node.domain,
            )
        )
        return outputs
