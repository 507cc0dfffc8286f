"""Checks that a model computes the images of a batch independently, so that it can run batches of positions."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from kcompiler.runtime.errors import ModelError

SHAPE_ONLY = ("Shape", "Size")
"""Operators whose outputs depend on shapes only, not on pixels."""
WHOLE_BATCH = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
"""Operators with a single dynamic scale for a whole tensor, and so for all images of a batch."""


class BatchError(ModelError):
    """The model cannot have a free batch axis. It may still run with a batch of one image."""


def subgraphs(graph: gs.Graph) -> Iterator[gs.Graph]:
    """The bodies of the graph's If, Loop and Scan nodes, recursively."""
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield value
                yield from subgraphs(value)


def check_independent(graph: gs.Graph) -> None:
    """Checks that every value that depends on the image has the batch as its first axis.

    Raises:
        BatchError: a value mixes images, or the graph contains the exporter's batch size as a constant.
    """
    depends = {graph.inputs[0].name}
    for node in graph.nodes:
        if node.op in SHAPE_ONLY or not any(value.name in depends for value in reads(node)):
            continue
        if node.op in WHOLE_BATCH:
            raise BatchError(
                f"node {node.name} ({node.op}) takes its scale from all that it reads: the images of a batch would change "
                "each other, and a patch changes everything; images run one by one (static quantisation may be faster)"
            )
        for value in node.outputs:
            if value.is_empty():
                continue
            depends.add(value.name)
            shape = value.shape
            if shape is not None and (len(shape) == 0 or isinstance(shape[0], int)):
                raise BatchError(
                    f"node {node.name} ({node.op}) gives {value.name} {list(shape)}, whose first axis is not the batch; "
                    "images run one by one (an export with a dynamic batch may be faster)"
                )


def reads(node: gs.Node) -> Iterator[gs.Tensor]:
    """The node's inputs, and the values that bodies inside it read, outer values included."""
    yield from node.inputs
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            for inner in value.nodes:
                yield from reads(inner)
            yield from value.outputs
