"""Explicit pads give the same numbers as auto_pad and ceil_mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from kcompiler.passes.normalising import pads
from kcompiler.passes.normalising.context import Context
from kcompiler.runtime.errors import ModelError

CONTEXT = Context(Path("one.onnx"), Path(), ModelError, TensorProto.FLOAT)


def model_of(op: str, size: int, **attributes: object):
    node = helper.make_node(op, ["image"], ["out"], **attributes)
    image = helper.make_tensor_value_info("image", 1, [1, 1, size, size])
    graph = helper.make_graph([node], "one", [image], [helper.make_tensor_value_info("out", 1, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model, image: np.ndarray) -> np.ndarray:
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [7, 8, 9])
@pytest.mark.parametrize("pad", [(0, 0), (0, 1), (1, 1), (1, 0)])
def test_ceil_mode_becomes_pads(op, kernel, stride, size, pad):
    if max(pad) >= kernel:
        pytest.skip("ONNX Runtime refuses pads of the kernel's size")
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad[0]] * 2 + [pad[1]] * 2, "ceil_mode": 1}
    model = model_of(op, size, **attributes)
    image = np.random.default_rng(0).standard_normal((1, 1, size, size), dtype=np.float32)
    expected = run(model, image)
    graph = gs.import_onnx(model)
    assert pads.make_explicit(graph, CONTEXT)
    assert graph.nodes[0].attrs["ceil_mode"] == 0
    np.testing.assert_array_equal(run(gs.export_onnx(graph, ir_version=8), image), expected)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 8])
def test_auto_pad_becomes_pads(mode, kernel, stride, size):
    model = model_of("MaxPool", size, kernel_shape=[kernel] * 2, strides=[stride] * 2, auto_pad=mode)
    image = np.random.default_rng(0).standard_normal((1, 1, size, size), dtype=np.float32)
    graph = gs.import_onnx(model)
    pads.make_explicit(graph, CONTEXT)
    assert "auto_pad" not in graph.nodes[0].attrs
    np.testing.assert_array_equal(run(gs.export_onnx(graph, ir_version=8), image), run(model, image))


def test_ambiguous_ceil_mode_is_refused():
    """Average counting its pads, last window behind the input: ONNX and ONNX Runtime disagree on the size."""
    graph = gs.import_onnx(
        model_of("AveragePool", 6, kernel_shape=[2, 2], strides=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1, count_include_pad=1)
    )
    graph.nodes[0].outputs[0].shape = [1, 1, 3, 3]
    graph.nodes[0].name = "pool"
    with pytest.raises(ModelError, match=r"pool.*ceil_mode"):
        pads.make_explicit(graph, CONTEXT)
