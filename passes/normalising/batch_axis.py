"""The image input: its first axis becomes a free batch, or one image, its other axes are static, in NCHW order."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from kcompiler.passes.graphs.names import fresh_name
from kcompiler.passes.source.bodies import all_names, is_read, rename_reads, unused
from kcompiler.passes.source.image_layout import to_channels_first
from kcompiler.passes.source.inputs import bind_inputs, take_float32
from kcompiler.passes.source.load import Source
from kcompiler.passes.source.outputs import cut
from kcompiler.passes.source.single_image import repeat

BATCH = "batch"


def set_batch(source: Source, output: str, free: bool) -> None:
    """Makes the first axis of the image a free batch (constant shapes of Reshapes are adapted) or 1, and its others static."""
    graph = source.model.graph
    cut(graph, output)
    image = next(value for value in graph.input if value.name == source.image)
    declared = image.type.tensor_type.shape.dim
    declared_batch = max(declared[0].dim_value, 0) if declared else 0  # some exporters write "any" as 0 or negative
    if source.layout == "NHWC":
        _bring_channels_first(graph, source.image)
    bind_inputs(source)
    take_float32(source)
    image.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, [BATCH if free else 1, *source.shape]))
    del graph.input[:]
    graph.input.append(image)
    del graph.value_info[:]
    source.model.ir_version = max(source.model.ir_version, 8)
    if free:
        _free_reshapes(graph, source.image, declared_batch or 1)
    if declared_batch > 1 and not free:
        repeat(graph, source.image, declared_batch)


def _bring_channels_first(graph: onnx.GraphProto, image: str) -> None:
    """Makes the image input NCHW, which replaces the outputs of its Transposes to NCHW.

    All other readers get the image transposed to NHWC.
    """
    dropped = to_channels_first(graph, image)
    outputs = {node.output[0] for node in dropped}
    for node in dropped:
        graph.node.remove(node)
    if is_read(graph, image):
        channels_last = unused(graph, f"{image}/channels_last")
        rename_reads(graph, image, channels_last)
        graph.node.insert(0, helper.make_node("Transpose", [image], [channels_last], perm=[0, 2, 3, 1]))
    for output in outputs:
        rename_reads(graph, output, image)
    for value in graph.output:
        if value.name in outputs:
            graph.node.append(helper.make_node("Identity", [image], [value.name]))


def _free_reshapes(graph: onnx.GraphProto, image: str, batch: int) -> None:
    """Changes Reshapes of image-dependent values to [exporter's batch, ...] into [0, ...], which keeps the first axis."""
    small = [tensor for tensor in graph.initializer if len(tensor.dims) == 1 and not uses_external_data(tensor)]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in small if tensor.data_type == TensorProto.INT64}
    depends, taken = {image}, all_names(graph)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name in ("value", "value_ints"):
                    constants[node.output[0]] = (
                        numpy_helper.to_array(attribute.t) if attribute.name == "value" else np.array(attribute.ints)
                    )
        if not depends.intersection(node.input):
            continue
        depends.update(node.output)
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = constants[node.input[1]].copy()
        if shape.size > 1 and shape[0] == batch and 0 not in shape:
            shape[0] = 0
            for attribute in [a for a in node.attribute if a.name == "allowzero"]:  # it would mean size 0
                node.attribute.remove(attribute)
            name = fresh_name(f"{node.output[0]}/free_shape", taken)
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name
