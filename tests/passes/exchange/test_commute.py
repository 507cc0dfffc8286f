"""1x1 convolutions and average pools change places where that is allowed and pays, and change no number but by rounding."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from everywhere import assert_exact_everywhere
from networks import Builder
from source_file import NEVER_DENSE

from kcompiler.options import Options
from kcompiler.passes.exchange.commute import convolve_before_pooling, pool_before_convolving
from kcompiler.passes.exchange.order import exchanged

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
    graph = exchanged(gs.import_onnx(model), passes=[convolve_before_pooling])
    operators = [node.op for node in graph.nodes]
    assert operators.index("AveragePool") > 1
    assert operators[:2] == ["Conv", "Conv"]
    found = gs.export_onnx(graph)
    onnx.checker.check_model(found, full_check=True)
    np.testing.assert_allclose(run(found), run(model), rtol=1e-5, atol=1e-5)


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
    assert exchanged(graph, passes=[convolve_before_pooling]) is graph


def test_the_source_graph_stays_as_it_is():
    graph = gs.import_onnx(network(POOL, 4))
    before = [node.op for node in graph.nodes]
    exchanged(graph, passes=[convolve_before_pooling])
    assert [node.op for node in graph.nodes] == before
    assert [node.name for node in graph.nodes] == [node.name for node in gs.import_onnx(network(POOL, 4)).nodes]


HALVING = {"kernel_shape": [2, 3], "strides": [2, 2]}


def pooled_behind(
    pool: dict[str, object], *, outputs: int = 32, bias: bool = True, kernel: int = 1, strides: int = 1, reader: bool = False
) -> onnx.ModelProto:
    """A convolution, Relu, a convolution that only the pool reads (or a Relu, too), the pool."""
    builder = Builder()
    x = builder.relu(builder.conv("image", 6, pads=[1, 1, 1, 1]))
    y = builder.conv(x, outputs, kernel, bias=bias, pads=[kernel // 2] * 4, strides=[strides, strides])
    pooled = builder.node("AveragePool", y, **pool) if pool else builder.node("GlobalAveragePool", y)
    if reader:
        pooled = builder.node("Add", pooled, builder.node("GlobalAveragePool", builder.relu(y)))
    return onnx.shape_inference.infer_shapes(builder.model(pooled, 9, 11))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "pool",
    [
        {},
        HALVING,
        {**HALVING, "pads": [1, 1, 0, 1]},
        {**HALVING, "ceil_mode": 1},
        {**HALVING, "count_include_pad": 1},
        {"kernel_shape": [3, 3], "strides": [1, 3], "pads": [1, 1, 1, 1]},
    ],
    ids=["global", "halving", "padded", "ceiling", "no padding that counts", "along one axis"],
)
def test_pools_to_fewer_cells_go_first(pool, bias):
    model = pooled_behind(pool, bias=bias)
    graph = exchanged(gs.import_onnx(model), passes=[pool_before_convolving])
    operators = [node.op for node in graph.nodes]
    assert operators.index(model.graph.node[-3].op_type) == operators.index("Relu") + 1
    found = gs.export_onnx(graph)
    onnx.checker.check_model(found, full_check=True)
    np.testing.assert_allclose(run(found), run(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_padding_that_counts_has_no_bias(bias):
    model = pooled_behind({**HALVING, "pads": [1, 1, 1, 1], "count_include_pad": 1}, bias=bias)
    source = gs.import_onnx(model)
    graph = exchanged(source, passes=[pool_before_convolving])
    assert (graph is source) == bias
    np.testing.assert_allclose(run(gs.export_onnx(graph)), run(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        pooled_behind({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        pooled_behind(HALVING, kernel=3),
        pooled_behind(HALVING, strides=2),
        pooled_behind({}, reader=True),
        pooled_behind({}, outputs=16),
    ],
    ids=["as many cells", "3x3 convolution", "strided convolution", "convolution read twice", "few channels"],
)
def test_other_pairs_stay_behind(model):
    graph = gs.import_onnx(model)
    assert exchanged(graph, passes=[pool_before_convolving]) is graph


def test_pairs_that_are_named_stay():
    graph = gs.import_onnx(pooled_behind(HALVING))
    *_, conv, pool, _, _ = graph.nodes
    assert (conv.op, pool.op) == ("Conv", "AveragePool")
    assert exchanged(graph, [conv.name], passes=[pool_before_convolving]) is graph
    assert exchanged(graph, [pool.name], passes=[pool_before_convolving]) is graph
    assert exchanged(graph, passes=[pool_before_convolving]) is not graph


def test_named_pairs_of_one_size_stay():
    graph = gs.import_onnx(network(POOL, 4))
    _, pool, conv, *_ = graph.nodes
    assert (pool.op, conv.op) == ("AveragePool", "Conv")
    assert exchanged(graph, [conv.name], passes=[convolve_before_pooling]) is graph
    assert exchanged(graph, [pool.name], passes=[convolve_before_pooling]) is graph


@pytest.mark.parametrize("pool", [{}, {"kernel_shape": [2, 2], "strides": [2, 2]}], ids=["global", "halving"])
def test_regions_through_a_pool_that_went_first_are_exact(pool, tmp_path):
    builder = Builder()
    x = builder.relu(builder.conv("image", 20, pads=[1, 1, 1, 1]))
    y = builder.conv(x, 32, 1)
    y = builder.node("AveragePool", y, **pool) if pool else builder.node("GlobalAveragePool", y)
    if pool:
        y = builder.relu(builder.conv(y, 8, pads=[1, 1, 1, 1]))
    onnx.save(builder.model(y, 18, 22), tmp_path / "model.onnx")
    assert_exact_everywhere(tmp_path / "model.onnx", Options(patch=(4, 5), dense_share=NEVER_DENSE))
