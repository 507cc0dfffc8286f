"""Models without a batch axis, or with a constant batch size: they are rewritten to take one image [1, ...]."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kcompiler.passes.source.bodies import rename_reads, unused


def add_batch(graph: onnx.GraphProto, image: onnx.ValueInfoProto) -> None:
    """Adds a first axis of size 1 to the image input; a Gather removes it in front of all readers.

    Where all readers are Unsqueezes that add this axis, they become Identities instead, and the batch is free.
    """
    readers = [node for node in graph.node if image.name in node.input]
    if readers and all(_puts_batch(graph, node) for node in readers):
        for node in readers:
            node.CopyFrom(helper.make_node("Identity", [image.name], list(node.output), name=node.name))
        first: int | str = "batch"
    else:
        alone, number = (unused(graph, f"{image.name}/{what}") for what in ("alone", "number"))
        rename_reads(graph, image.name, alone)
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), number))
        graph.node.insert(0, helper.make_node("Gather", [image.name, number], [alone], axis=0))
        first = 1
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in image.type.tensor_type.shape.dim]
    image.type.CopyFrom(helper.make_tensor_type_proto(image.type.tensor_type.elem_type, [first, *sizes]))


def _puts_batch(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether the node adds a first axis, and nothing else."""
    if node.op_type != "Unsqueeze":
        return False
    axes = [list(attribute.ints) for attribute in node.attribute if attribute.name == "axes"]
    if len(node.input) > 1:
        axes += [numpy_helper.to_array(tensor).ravel().tolist() for tensor in graph.initializer if tensor.name == node.input[1]]
        axes += [
            numpy_helper.to_array(attribute.t).ravel().tolist()
            for producer in graph.node
            if producer.op_type == "Constant" and producer.output[0] == node.input[1]
            for attribute in producer.attribute
            if attribute.name == "value"
        ]
    return axes == [[0]]


def repeat(graph: onnx.GraphProto, image: str, count: int) -> None:
    """Repeats the image to the constant batch size ``count`` of the graph, and selects the first image's output."""
    (output,) = graph.output
    batch, number = (unused(graph, f"{image}/{what}") for what in ("repeated", "number"))
    first = unused(graph, f"{output.name}/first")
    rename_reads(graph, image, batch)
    graph.node.insert(0, helper.make_node("Concat", [image] * count, [batch], axis=0))
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), number))
    graph.node.append(helper.make_node("Gather", [output.name, number], [first], axis=0))
    output.name = first
    if output.type.HasField("tensor_type"):
        output.type.tensor_type.ClearField("shape")
