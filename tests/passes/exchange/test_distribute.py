"""What reads joined branches works on each where that is allowed and pays, and changes no number but by rounding."""

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
from kcompiler.passes.exchange.distribute import convolve_before_joining, pool_before_joining
from kcompiler.passes.exchange.order import exchanged


def network(
    *outputs: int, axis: int = 1, kernel: int = 1, bias: bool = True, stride: int = 1, reader: str = "", parts: int = 3
) -> onnx.ModelProto:
    """Branches of 8 channels each, joined, and a convolution to each number of ``outputs``."""
    builder = Builder()
    branches = [builder.relu(builder.conv("image", 8, kernel, pads=[kernel // 2] * 4)) for kernel in (1, 3, 5)[:parts]]
    joined = builder.node("Concat", *branches, axis=axis, channels=8 * (1 if axis == 2 else parts))
    pads = [kernel // 2] * 4
    convs = [builder.conv(joined, n, kernel, bias=bias, pads=pads, strides=[stride] * 2) for n in outputs]
    readers = [builder.node(reader, joined)] if reader else []
    y = builder.node("Concat", *convs, *readers, axis=1, channels=sum(outputs)) if len(convs + readers) > 1 else convs[0]
    return onnx.shape_inference.infer_shapes(builder.model(builder.relu(y), 9, 11))


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    image = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return session.run(None, {"image": image})[0]


@pytest.mark.parametrize(
    "model",
    [
        network(4), network(2, 2), network(4, axis=-3), network(4, bias=False), network(3, stride=2), network(4, parts=2)
    ],
    ids=["one", "two readers", "axis from behind", "no bias", "strided", "two parts"],
)  # fmt: skip
def test_sums_give_the_same_outputs(model):
    graph = exchanged(gs.import_onnx(model), passes=[convolve_before_joining])
    assert sum(node.op == "Concat" for node in graph.nodes) < sum(node.op_type == "Concat" for node in model.graph.node)
    found = gs.export_onnx(graph)
    onnx.checker.check_model(found, full_check=True)
    np.testing.assert_allclose(run(found), run(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [network(5), network(2, 3), network(4, kernel=3), network(4, reader="Relu"), network(2, axis=2)],
    ids=["too many channels", "too many in all", "3x3 convolution", "another reader", "joined along y"],
)
def test_others_stay(model):
    graph = gs.import_onnx(model)
    assert exchanged(graph, passes=[convolve_before_joining]) is graph


def test_what_a_named_convolution_reads_stays():
    graph = gs.import_onnx(network(2, 2))
    name = next(node.name for node in reversed(graph.nodes) if node.op == "Conv")
    assert exchanged(graph, {name}, passes=[convolve_before_joining]) is graph


def test_alike_convolutions_keep_their_own_outputs():
    model = network(2, 2)
    first, second = [node for node in model.graph.node if node.op_type == "Conv"][-2:]
    second.input[1:] = first.input[1:]
    np.testing.assert_allclose(
        run(gs.export_onnx(exchanged(gs.import_onnx(model), passes=[convolve_before_joining]))), run(model), rtol=1e-5, atol=1e-5
    )


def test_the_source_graph_stays_as_it_is():
    graph = gs.import_onnx(network(4))
    before = [node.op for node in graph.nodes]
    exchanged(graph, passes=[convolve_before_joining])
    assert [node.op for node in graph.nodes] == before
    assert [node.outputs[0].name for node in graph.nodes] == [node.output[0] for node in network(4).graph.node]


THIRDS = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}


def pooled(operator: str = "MaxPool", axis: int = 1, reader: str = "", **attributes: object) -> onnx.ModelProto:
    """Branches of 8, 6 and 4 channels, joined and pooled."""
    builder = Builder()
    branches = [builder.relu(builder.conv("image", n, k, pads=[k // 2] * 4)) for n, k in ((8, 1), (6, 3), (4, 5))]
    if axis == 2:
        branches = [builder.conv(branch, 4, 1) for branch in branches]
    joined = builder.node("Concat", *branches, axis=axis, channels=4 if axis == 2 else 18)
    y = builder.node(operator, joined, **(attributes or THIRDS))
    if reader:
        y = builder.node("Concat", y, builder.node(operator, builder.node(reader, joined), **(attributes or THIRDS)), axis=1)
    return onnx.shape_inference.infer_shapes(builder.model(y, 18, 22))


@pytest.mark.parametrize(
    "model",
    [
        pooled(), pooled(axis=-3), pooled("AveragePool"), pooled("AveragePool", **THIRDS, count_include_pad=1),
        pooled("LpPool", **THIRDS, p=2), pooled(**THIRDS, ceil_mode=1),
    ],
    ids=["largest", "axis from behind", "mean", "mean with padding", "norm", "ceiling"],
)  # fmt: skip
def test_pooled_parts_are_the_same_numbers(model):
    graph = exchanged(gs.import_onnx(model), passes=[pool_before_joining])
    operators = [node.op for node in graph.nodes]
    assert operators.index("Concat") == max(n for n, op in enumerate(operators) if op.endswith("Pool")) + 1
    found = gs.export_onnx(graph)
    onnx.checker.check_model(found, full_check=True)
    np.testing.assert_allclose(run(found), run(model), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [pooled(kernel_shape=[3, 3], pads=[1, 1, 1, 1]), pooled(axis=2), pooled(reader="Relu")],
    ids=["as many cells", "joined along y", "another reader"],
)
def test_other_pools_stay(model):
    graph = gs.import_onnx(model)
    assert exchanged(graph, passes=[pool_before_joining]) is graph


@pytest.mark.parametrize("operator", ["MaxPool", "Concat"])
def test_a_named_pair_stays(operator):
    graph = gs.import_onnx(pooled())
    (named,) = (node for node in graph.nodes if node.op == operator)
    assert exchanged(graph, [named.name], passes=[pool_before_joining]) is graph
    assert exchanged(graph, passes=[pool_before_joining]) is not graph


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_regions_of_pooled_parts_are_exact(operator, tmp_path):
    onnx.save(pooled(operator), tmp_path / "model.onnx")
    assert_exact_everywhere(tmp_path / "model.onnx", Options(patch=(4, 5), dense_share=NEVER_DENSE))
