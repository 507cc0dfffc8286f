"""Convolutions before a mean over all cells get whole blocks of channels where that is allowed, and no output changes."""

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
from kcompiler.passes.exchange.blocks import fill_blocks
from kcompiler.passes.exchange.order import exchanged


def network(
    head: str = "GlobalAveragePool",
    axes: tuple[int, ...] = (2, 3),
    *,
    channels: int = 62,
    kernel: int = 3,
    bias: bool = True,
    activation: str = "LeakyRelu",
    twice: bool = False,
    **attributes: int,
) -> onnx.ModelProto:
    """A convolution, an activation, the mean; the activation is read ``twice`` or not."""
    builder = Builder()
    x = builder.relu(builder.conv("image", 6, pads=[1, 1, 1, 1]))
    x = builder.conv(x, channels, kernel, bias=bias, pads=[kernel // 2] * 4)
    x = builder.node(activation, x, *([builder.weight(channels, 1, 1)] if activation == "PRelu" else []))
    given = () if head.startswith("Global") else (builder.constant(list(axes), np.int64),)
    y = builder.node(head, x, *given, **attributes)
    if twice:
        y = builder.node("Add", y, builder.node("GlobalMaxPool", x))
    return onnx.shape_inference.infer_shapes(builder.model(y, 9, 11))


def run(model: onnx.ModelProto) -> np.ndarray:
    image = np.random.default_rng(1).standard_normal((1, 3, 9, 11), dtype=np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


@pytest.mark.parametrize(
    ("head", "attributes"),
    [
        ("GlobalAveragePool", {}),
        ("ReduceMean", {"axes": (-1, 2)}),
        ("ReduceMean", {"keepdims": 0}),
        ("ReduceSum", {"keepdims": 1}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_filled_blocks_give_the_same_outputs(head, attributes, bias):
    model = network(head, bias=bias, **attributes)
    source = gs.import_onnx(model)
    graph = exchanged(source, passes=[fill_blocks])
    conv, mean = (node for node in graph.nodes if node.op in ("Conv", head) and node.outputs[0].shape[1] == 64)
    assert (conv.op, mean.op) == ("Conv", head)
    assert [node.outputs[0].shape[1] for node in source.nodes if node.op == "Conv"] == [6, 62], "the source stays as it is"
    filled = gs.export_onnx(graph)
    onnx.checker.check_model(filled, full_check=True)
    np.testing.assert_allclose(run(filled), run(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        network(channels=64),
        network(channels=20),
        network(activation="PRelu"),
        network(activation="Elu"),
        network(twice=True),
        network("ReduceMean", (1, 2)),
        network("ReduceMean", (2,)),
        network("GlobalMaxPool"),
    ],
    ids=[
        "whole blocks",
        "few channels",
        "a number a channel",
        "no blocks",
        "read twice",
        "over channels",
        "over lines",
        "largest",
    ],
)
def test_others_stay(model):
    graph = gs.import_onnx(model)
    assert exchanged(graph, passes=[fill_blocks]) is graph


def test_means_over_computed_axes_stay():
    graph = gs.import_onnx(network("ReduceMean"))
    (mean,) = (node for node in graph.nodes if node.op == "ReduceMean")
    axes = gs.Variable("axes", np.int64, [2])
    graph.nodes.append(gs.Node("Abs", inputs=[mean.inputs[1]], outputs=[axes]))
    mean.inputs = [mean.inputs[0], axes]
    assert exchanged(graph, passes=[fill_blocks]) is graph


def test_nodes_that_are_named_stay():
    graph = gs.import_onnx(network())
    *_, conv, activation, mean, _, _ = graph.nodes
    assert [node.op for node in (conv, activation, mean)] == ["Conv", "LeakyRelu", "GlobalAveragePool"]
    for node in (conv, activation, mean):
        assert exchanged(graph, [node.name], passes=[fill_blocks]) is graph
    assert exchanged(graph, [graph.nodes[0].name], passes=[fill_blocks]) is not graph


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("lowering", ["gemm", "regions"])
def test_regions_before_a_mean_are_exact(lowering, kernel, extents, tmp_path):
    onnx.save(network(kernel=kernel), tmp_path / "model.onnx")
    prefer = {"Conv": lowering}
    explainer = assert_exact_everywhere(
        tmp_path / "model.onnx", Options(patch=(3, 4), prefer=prefer, extents=extents, dense_share=NEVER_DENSE)
    )
    report = explainer.manifest.report
    assert {node.lowering for node in report.nodes if node.operator == "Conv"} == {lowering}
    assert "Slice" in {node.operator for node in report.nodes}, "what was filled is cut off"
