"""Small models, to be broken."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.cases import Content, Files

MODEL, WEIGHTS = "model.onnx", "weights.bin"
IMAGE = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
SCORES = helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)


def convolution(weights: str = "weights", **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", ["image", weights], ["maps"], "conv", kernel_shape=[3, 3], **attributes)


def filters(channels: int = 4, depth: int = 3) -> TensorProto:
    values = np.random.default_rng(0).standard_normal((channels, depth, 3, 3)).astype(np.float32)
    return numpy_helper.from_array(values, "weights")


def head(maps: str = "maps", scores: str = "scores") -> list[onnx.NodeProto]:
    """The mean of each map."""
    return [helper.make_node("GlobalAveragePool", [maps], ["means"]), helper.make_node("Flatten", ["means"], [scores])]


def model(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto] | None = None,
    *,
    image: onnx.ValueInfoProto = IMAGE,
    output: onnx.ValueInfoProto = SCORES,
    functions: list[onnx.FunctionProto] | None = None,
    opsets: tuple[tuple[str, int], ...] = (("", 18),),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "hostile", [image], [output], weights if weights is not None else [filters()])
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions or [])


def plain() -> onnx.ModelProto:
    return model([convolution(), *head()])


def files(made: onnx.ModelProto, **others: Content) -> Files:
    return {MODEL: made.SerializeToString(), **{name.replace("_", "."): content for name, content in others.items()}}
