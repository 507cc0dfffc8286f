"""1x1 convolutions go before average pools where that is allowed and pays, and change no number but by rounding."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from networks import Builder

from kcompiler.passes.commute import convolve_before_pooling

POOL = {"kernel_shape": [3, 2], "strides": [1, 1], "pads": [1, 0, 1, 1]}


def network(
    pool: dict[str, object], outputs: int, *, bias: bool = True, kernel: int = 1, reader: bool = False
) -> onnx.ModelProto:
    builder = Builder()
    x = builder.conv("image", 6, pads=[1, 1, 1, 1])
    pooled = builder.node("AveragePool", x, **pool)
    y = builder.conv(pooled, outputs, kernel, bias=bias, pads=[kernel // 2] * 4)
    y = builder.node("Concat", y, pooled, axis=1, channels=outputs + 6) if reader else builder.relu(y)
    model = builder.model(y, 9, 11)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto) -> np.ndarray:
    image = np.random.default_rng(1).standard_normal((1, 3, 9, 11), dtype=np.float32)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"image": image}
    )[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("counted", [0, 1])
def test_exchanged_nodes_give_the_same_outputs(bias, counted):
    model = network({**POOL, "count_include_pad": counted}, 4, bias=bias)
    graph = convolve_before_pooling(gs.import_onnx(model))
    operators = [node.op for node in graph.nodes]
    assert operators.index("AveragePool") > 1
    assert operators[:2] == ["Conv", "Conv"]
    exchanged = gs.export_onnx(graph)
    onnx.checker.check_model(exchanged, full_check=True)
    np.testing.assert_allclose(run(exchanged), run(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        network(POOL, 6),
        network({**POOL, "strides": [2, 1]}, 4),
        network({**POOL, "pads": [0, 0, 0, 0]}, 4),
        network(POOL, 4, kernel=3),
        network(POOL, 4, reader=True),
    ],
    ids=["no fewer channels", "strided pool", "pool to fewer cells", "3x3 convolution", "pool read twice"],
)
def test_other_pairs_stay(model):
    graph = gs.import_onnx(model)
    assert convolve_before_pooling(graph) is graph


def test_the_source_graph_stays_as_it_is():
    graph = gs.import_onnx(network(POOL, 4))
    before = [node.op for node in graph.nodes]
    convolve_before_pooling(graph)
    assert [node.op for node in graph.nodes] == before
    assert [node.name for node in graph.nodes] == [node.name for node in gs.import_onnx(network(POOL, 4)).nodes]
