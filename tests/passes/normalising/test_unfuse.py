"""Models that ONNX Runtime wrote after optimising: each of its operators against its own kernel, then whole networks."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import Builder
from onnx import TensorProto, helper, numpy_helper
from quantised import optimised
from source_file import assert_equals_source, mean_head, save

from kcompiler.passes.normalising.unblock import BLOCKED, UNBLOCKED, block_size, unblock
from kcompiler.passes.normalising.unfuse import FUSED, MICROSOFT, unfuse

OPSETS = (10, 13, 18, 21)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


CONV, MAP = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, (2, 3, 5, 6)
CASES = {
    "convolution with nothing": ("FusedConv", MAP, [weights(4, 3, 3, 3)], CONV),
    "convolution and Relu": ("FusedConv", MAP, [weights(4, 3, 3, 3), weights(4)], {**CONV, "activation": "Relu"}),
    "convolution and Tanh": ("FusedConv", MAP, [weights(4, 3, 3, 3)], {**CONV, "activation": "Tanh"}),
    "convolution and Sigmoid": ("FusedConv", MAP, [weights(4, 3, 3, 3), weights(4)], {**CONV, "activation": "Sigmoid"}),
    "convolution and Clip": (
        "FusedConv", MAP, [weights(4, 3, 3, 3)], {**CONV, "activation": "Clip", "activation_params": [-0.5, 2.0]},
    ),
    "convolution and LeakyRelu": (
        "FusedConv", MAP, [weights(4, 3, 3, 3)], {**CONV, "activation": "LeakyRelu", "activation_params": [0.2]},
    ),
    "convolution and HardSigmoid": (
        "FusedConv", MAP, [weights(4, 3, 3, 3)], {**CONV, "activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
    ),
    "convolution, a summand and Relu": (
        "FusedConv", MAP, [weights(4, 3, 3, 3), weights(4), weights(2, 4, 5, 6)], {**CONV, "activation": "Relu"},
    ),
    "product and Relu": ("FusedGemm", (2, 5), [weights(4, 5), weights(4)], {"transB": 1, "alpha": 0.5, "activation": "Relu"}),
    "product and LeakyRelu": (
        "FusedGemm", (2, 5), [weights(5, 4), weights(4)], {"activation": "LeakyRelu", "activation_alpha": 0.1},
    ),
    "scaled product": ("FusedMatMul", (2, 3, 5), [weights(5, 4)], {"alpha": 0.125}),
    "swish": ("QuickGelu", MAP, [], {"alpha": 1.0}),
    "sigmoid of 1.702": ("QuickGelu", MAP, [], {}),
    "error function": ("Gelu", MAP, [], {}),
    "bias, error function": ("BiasGelu", (2, 4, 5), [weights(5)], {}),
    "hyperbolic tangent": ("FastGelu", (2, 4, 5), [], {}),
    "bias, hyperbolic tangent": ("FastGelu", (2, 4, 5), [weights(5)], {}),
    "sum, normalised": ("SkipLayerNormalization", (2, 4, 5), [weights(2, 4, 5), weights(5), weights(5)], {"epsilon": 1e-5}),
    "sum and bias, normalised": (
        "SkipLayerNormalization", (2, 4, 5), [weights(2, 4, 5), weights(5), weights(5) + 1, weights(5)], {},
    ),
}  # fmt: skip


def alone(operator: str, shape: tuple[int, ...], constants: list[np.ndarray], attributes: dict, opset: int) -> onnx.ModelProto:
    """One node of com.microsoft, on an input x of ``shape``."""
    names = [f"weights_{number}" for number in range(len(constants))]
    node = helper.make_node(operator, ["x", *names], ["y"], "fused", domain=MICROSOFT, **attributes)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    tensors = [numpy_helper.from_array(array, name) for array, name in zip(constants, names, strict=True)]
    graph = helper.make_graph([node], "alone", [given], [helper.make_empty_tensor_value_info("y")], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", CASES)
def test_parts_do_what_the_kernel_does(case, opset, tmp_path):
    operator, shape, constants, attributes = CASES[case]
    model = alone(operator, shape, constants, attributes, opset)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32) * 2
    expected = run(model, x)
    if operator == "SkipLayerNormalization" and opset < 17:
        assert not unfuse(model, tmp_path, FUSED), "there is no standard operator yet"
        return
    assert unfuse(model, tmp_path, FUSED)
    assert {node.domain for node in model.graph.node} == {""}
    assert model.graph.node[-1].output[0] == "y"
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-5, atol=2e-6)


def test_every_operator_is_tried():
    assert {operator for operator, *_ in CASES.values()} == {*FUSED}


@pytest.mark.parametrize(
    ("operator", "shape", "constants", "attributes"),
    [
        ("FusedMatMul", (4, 3), [weights(5, 3)], {"transB": 1}),
        ("FusedMatMul", (2, 3, 4), [weights(2, 3, 5)], {"transA": 1}),
    ],
)
def test_what_no_standard_operator_says_stays(operator, shape, constants, attributes, tmp_path):
    model = alone(operator, shape, constants, attributes, 18)
    assert not unfuse(model, tmp_path, FUSED)
    assert [node.op_type for node in model.graph.node] == [operator]


def test_what_several_outputs_are_read_of_stays(tmp_path):
    model = alone("SkipLayerNormalization", (2, 4, 5), [weights(2, 4, 5), weights(5)], {}, 18)
    model.graph.node[0].output.extend(["", "", "sum"])
    assert not unfuse(model, tmp_path, FUSED)


def test_half_precision_stays(tmp_path):
    model = alone("Gelu", MAP, [], {}, 18)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float16), "half"))
    assert not unfuse(model, tmp_path, FUSED)


# ---- networks: written by ONNX Runtime itself, compiled, and compared with that file


def residual(b: Builder, opset: int) -> str:
    """A sum within a convolution, and channels that fill blocks and do not."""
    x = b.relu(b.conv("image", 16, pads=[1, 1, 1, 1]))
    y = b.conv(b.relu(b.conv(x, 20, pads=[1, 1, 1, 1])), 16, pads=[1, 1, 1, 1])
    x = b.node("MaxPool", b.relu(b.node("Add", y, x)), kernel_shape=[2, 2], strides=[1, 2])
    return mean_head(b, opset, x)


def gated(b: Builder, opset: int) -> str:
    """Swish, depthwise convolutions, a gate of one number a channel."""
    x = b.conv("image", 24, pads=[1, 1, 1, 1])
    x = b.conv(b.node("Mul", x, b.node("Sigmoid", x)), 24, group=24, pads=[1, 1, 1, 1])
    x = b.node("AveragePool", x, kernel_shape=[2, 2], pads=[0, 1, 1, 0])
    return mean_head(b, opset, b.conv(b.node("HardSwish", x), 32, group=2))


def shuffled(b: Builder, opset: int) -> str:
    """Channels out of blocks and into them again, in another order."""
    x = b.relu(b.conv("image", 20, pads=[1, 1, 1, 1]))
    x = b.node("Gather", x, b.constant(list(range(19, -1, -1)), np.int64), axis=1)
    return mean_head(b, opset, b.node("Tanh", b.conv(x, 18)))


def last(b: Builder, opset: int) -> str:
    """As ConvNeXt's blocks: channels last between convolutions."""
    x = b.conv("image", 16, pads=[1, 1, 1, 1])
    y = b.node("Transpose", x, perm=[0, 2, 3, 1])
    y = b.node("Add", b.node("MatMul", y, b.weight(16, 16, scale=0.3)), b.weight(16))
    erf = b.node("Erf", b.node("Div", y, b.constant(2**0.5)))
    y = b.node("Mul", b.node("Mul", y, b.node("Add", erf, b.constant(1.0))), b.constant(0.5))
    return mean_head(b, opset, b.node("Add", b.node("Transpose", y, perm=[0, 3, 1, 2]), x, channels=16))


@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
@pytest.mark.parametrize("network", [residual, gated, shuffled, last])
def test_optimised_networks_are_taken_apart(network, level, tmp_path):
    path = optimised(save(tmp_path, network, 18, batch="N"), level)
    own = {node.domain for node in onnx.load(path).graph.node} - {""}
    assert own, "ONNX Runtime is to put operators of its own there"
    nodes = assert_equals_source(path).report.nodes
    reasons = {node.reason for node in nodes if not node.incremental}
    assert sum(node.incremental for node in nodes) > 3, reasons
    assert not any("no region rule" in reason for reason in reasons), reasons


@pytest.mark.parametrize(("outputs", "inputs", "group"), [(32, 16, 1), (16, 3, 1), (32, 1, 32), (64, 16, 4)])
def test_blocked_weights_come_back(outputs, inputs, group, tmp_path):
    """As the convolution that reads them has it: against the standard one."""
    if block_size() != 16:
        pytest.skip("blocks of 16 channels are written out here")
    kernel = weights(outputs, inputs, 3, 3)
    plain = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], group=group)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs * group, 7, 8])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs, 5, 6])
    graph = helper.make_graph([plain], "plain", [image], [output], [numpy_helper.from_array(kernel, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "plain.onnx")
    model = onnx.load(optimised(tmp_path / "plain.onnx", "ALL"))
    assert any(node.domain == BLOCKED for node in model.graph.node)
    assert unblock(model, tmp_path)
    used = {name for node in model.graph.node for name in node.input}
    back = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in used and len(tensor.dims) == 4]
    np.testing.assert_array_equal(back[0], kernel)


def test_a_blocked_operator_without_an_entry_stays(tmp_path):
    assert "Upsample" not in UNBLOCKED
    path = save(tmp_path, residual, 18)
    model = onnx.load(optimised(path, "ALL"))
    node = next(node for node in model.graph.node if node.op_type == "MaxPool")
    node.op_type = "Upsample"
    assert not unblock(model, tmp_path)
