"""Weights in one file beside the models."""

from __future__ import annotations

import numpy as np
import onnx
from networks import Builder
from onnx import TensorProto, helper

import kcompiler
from kcompiler.runtime.measuring.check import check, sample_positions


def test_a_weight_that_the_bodies_of_an_if_share_is_written_once(tmp_path):
    builder = Builder()
    x = builder.conv("image", 16, pads=[1, 1, 1, 1])
    weight = builder.weight(16, 16, 3, 3, scale=0.1)
    bodies = {}
    for name, last in (("then_branch", "Relu"), ("else_branch", "Neg")):
        nodes = [helper.make_node("Conv", [x, weight], ["y"], pads=[1, 1, 1, 1]), helper.make_node(last, ["y"], ["z"])]
        bodies[name] = helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    largest = builder.node("ReduceMax", x, keepdims=0)
    condition = builder.node("Greater", largest, builder.constant(0.0))
    y = builder.node("If", condition, channels=16, **bodies)
    pooled = builder.node("GlobalAveragePool", y, channels=16)
    onnx.save(builder.model(pooled, 16, 16), tmp_path / "model.onnx")
    bundle = kcompiler.compile(tmp_path / "model.onnx", patch=4)
    stored = (bundle.folder / "weights.bin").read_bytes()
    values = next(onnx.numpy_helper.to_array(one) for one in builder.weights if one.name == weight)
    assert stored.count(np.ascontiguousarray(values).tobytes()) == 1
    found = check(kcompiler.load(bundle), sample_positions((16, 16), (4, 4), 20, 0))
    assert found.agrees, found.reason
