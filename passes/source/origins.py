"""Which node of the file each node of a normalised graph stems from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs


@dataclass(frozen=True, slots=True)
class Origins:
    """The nodes of a file, as they are before any pass changes the model.

    Attributes:
        names: by name, nodes that have one.
        makers: by output, the name of the node; of a node without a name, that of its first output.
    """

    names: frozenset[str]
    makers: Mapping[str, str]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> Origins:
        names = frozenset(node.name for node in graph.node if node.name)
        return cls(names, {output: node.name or node.output[0] for node in graph.node for output in node.output if output})

    def find(self, graph: gs.Graph) -> dict[str, str]:
        """By node name of a normalised ``graph`` (sorted), the node of the file that it stems from; "" if there is none.

        1. A node that has its name.
        2. A node that made one of its outputs: the last of those that an operator became.
        3. What its readers stem from by 2, if all agree: the others that the operator became.
        4. None: normalisation made it.
        """
        found: dict[str, str] = {}
        parts: dict[str, str] = {}  # by 2 and 3
        for node in reversed(graph.nodes):
            made = next((self.makers[value.name] for value in node.outputs if value.name in self.makers), "")
            readers = {parts.get(reader.name, "") for value in node.outputs for reader in value.outputs}
            part = made or (readers.pop() if len(readers) == 1 else "")
            if node.name in self.names:
                found[node.name] = node.name
            else:
                found[node.name] = parts[node.name] = part
        return found
