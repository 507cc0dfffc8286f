"""Whether a model treats the images of a batch one by one, so that batches of positions may go through it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from kcompiler.runtime.errors import ModelError

SHAPE_ONLY = ("Shape", "Size")
"""Their outputs follow from shapes, not from what the image shows."""
WHOLE_BATCH = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
"""They take one scale from all of a tensor, the images of a batch together."""


class BatchError(ModelError):
    """The model does not take a free batch; image by image it may still run."""


def subgraphs(graph: gs.Graph) -> Iterator[gs.Graph]:
    """The bodies of the graph's If, Loop and Scan nodes, and theirs."""
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield value
                yield from subgraphs(value)


def check_independent(graph: gs.Graph) -> None:
    """Every value that depends on the image must have the batch as its first axis.

    Raises:
        BatchError: one has not: it is made of several images, or the exporter's batch is written into the graph.
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
    """The node's inputs, and what the bodies inside it read from around them."""
    yield from node.inputs
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            for inner in value.nodes:
                yield from reads(inner)
            yield from value.outputs
