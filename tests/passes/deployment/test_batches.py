"""The batches of a map model: filled for runtimes whose convolutions fail on no regions."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from kcompiler.passes.deployment.batches import Scheduled
from kcompiler.passes.deployment.builder import Builder
from kcompiler.runtime.inputs.positions import make_grid


@pytest.mark.parametrize("least", [1, 4, 8, 16])
def test_the_last_slot_fills_a_batch(least):
    grid = make_grid((20, 20), (4, 4), 4)
    body = Builder("test/")
    filled = Scheduled(grid, [np.arange(25)], least=least).filled(body, "slots")
    body("Identity", filled, name="filled")
    slots = helper.make_tensor_value_info("slots", TensorProto.INT64, ["n"])
    graph = helper.make_graph(
        body.nodes, "g", [slots], [helper.make_tensor_value_info("filled", TensorProto.INT64, None)], body.initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in range(1, 25):
        given = np.random.default_rng(count).integers(0, 27, count)
        (found,) = session.run(None, {"slots": given})
        np.testing.assert_array_equal(found, np.concatenate([given, given[-1:].repeat(max(0, least - count))]))
