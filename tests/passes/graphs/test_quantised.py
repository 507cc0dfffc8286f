"""Quantised models: the very numbers of the file as given, at every position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import CHANNELS
from quantised import (
    HEIGHT,
    STATIC,
    WIDTH,
    activated,
    averaged,
    branches,
    gated,
    normalised,
    optimised,
    residual,
    save_dynamic,
    save_static,
)
from source_file import NEVER_DENSE, PATCH, assert_equals_source

from kcompiler.options import Options
from kcompiler.passes.normalising.normalise import normalise
from kcompiler.passes.plan import make_plan
from kcompiler.passes.regions.rules import RULES
from kcompiler.passes.source.load import load
from kcompiler.pipeline import compile_file
from kcompiler.runtime.bundle.report import Report
from kcompiler.runtime.explainer import Explainer


def assert_same_bits(path: Path, **options: Any) -> Report:
    """Compiles ``path`` and compares it with the file itself at every position: no output is off by a quantum, or less."""
    return assert_equals_source(path, same_bits=True, **options).report


def computed(report: Report) -> set[str]:
    """Operators of the nodes of which only regions are computed."""
    return {node.operator for node in report.nodes if node.incremental}


def why_dense(report: Report) -> str:
    """Why the first node is that is not."""
    return next(node.reason for node in report.nodes if not node.incremental)


@pytest.mark.parametrize("network", STATIC)
@pytest.mark.parametrize("operators", [False, True])
def test_networks(network, operators, tmp_path):
    report = assert_same_bits(save_static(tmp_path, network, operators=operators))
    assert {"QuantizeLinear", "QLinearConv"} <= computed(report)


def test_every_rule_for_integers_has_a_network(tmp_path):
    """Among those of the test above."""
    found = set()
    for network in STATIC:
        source = load(save_static(tmp_path, network, operators=True))
        graph = normalise(source, source.model.graph.output[0].name, tmp_path)
        found |= {decision.operator for decision in make_plan(graph, PATCH).decisions if decision.incremental}
    assert {op for op in RULES if op.startswith(("QLinear", "Quantize"))} <= found


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantised_and_dequantised_around_operators(opset, per_channel, tmp_path):
    report = assert_same_bits(save_static(tmp_path, opset=opset, per_channel=per_channel))
    assert computed(report) == {"QuantizeLinear", "QLinearConv", "MaxPool", "QLinearAdd", "QLinearAveragePool"}
    assert why_dense(report) == "takes in the whole map"


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("per_channel", [False, True])
def test_signed_activations_around_operators(opset, per_channel, tmp_path):
    """ONNX Runtime runs some convolutions on float32 then, behind a value that two read."""
    report = assert_same_bits(save_static(tmp_path, opset=opset, activations="QInt8", per_channel=per_channel))
    assert not computed(report)
    assert "(Conv) sums in float32 what" in why_dense(report)


def test_a_first_layer_that_is_not_quantised(tmp_path):
    report = assert_same_bits(save_static(tmp_path, left_out=("n0",)))
    assert "node n0 (Conv) sums in float32 what" in why_dense(report)


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("batch", [1, "N"])
def test_operators_on_integers(activations, batch, tmp_path):
    report = assert_same_bits(save_static(tmp_path, operators=True, activations=activations, batch=batch))
    assert {"QLinearConv", "QLinearAdd", "QLinearAveragePool"} <= computed(report)


@pytest.mark.parametrize("network", [residual, branches, activated])
@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
def test_what_the_runtime_wrote_after_optimising(network, level, tmp_path):
    """At the last level with channels last."""
    report = assert_same_bits(optimised(save_static(tmp_path, network), level))
    assert {"QuantizeLinear", "QLinearConv"} <= computed(report)


def test_batch_normalisation_between_integers(tmp_path):
    """Its parameters are quantised, too."""
    assert "BatchNormalization" in computed(assert_same_bits(save_static(tmp_path, normalised)))


@pytest.mark.parametrize("last", ["Softmax", "Sigmoid"])
@pytest.mark.parametrize("only", [(), ("Conv", "Gemm")])
@pytest.mark.parametrize("operators", [False, True])
def test_logits(last, only, operators, tmp_path):
    """Of what a softmax or sigmoid reads, integers or not: as numbers of which that operator makes the output."""
    path = save_static(tmp_path, last=last, only=only, operators=operators)
    bundle = compile_file(path, Options(patch=PATCH, dense_share=NEVER_DENSE))
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    assert bundle.manifest.logits is not None
    image = np.random.default_rng(1).standard_normal((1, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    engine, positions = explainer.exact, np.array([(0, 0), (4, 5), (9, 10)])
    found = engine.evaluate_all(engine.baseline(image, 0.5), positions, *bundle.manifest.outputs)
    outputs, logits = np.split(found, 2, axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True) if last == "Softmax" else 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(outputs, expected, atol=1 / 128)


def test_only_convolutions_quantised(tmp_path):
    """All between them is computed on float32."""
    report = assert_same_bits(save_static(tmp_path, normalised, only=("Conv",)))
    assert {"QLinearConv", "DequantizeLinear", "BatchNormalization", "Concat"} <= computed(report)


@pytest.mark.parametrize("lowering", ["regions", "gemm"])
@pytest.mark.parametrize("network", [residual, gated])
def test_both_ways_to_convolve(network, lowering, tmp_path):
    report = assert_same_bits(save_static(tmp_path, network, per_channel=True), prefer={"QLinearConv": lowering})
    assert lowering in {node.lowering for node in report.nodes if node.operator == "QLinearConv"}


@pytest.mark.parametrize("extents", ["tight", "static"])
def test_extents(extents, tmp_path):
    assert_same_bits(save_static(tmp_path), extents=extents)


def test_calibrated(tmp_path):
    assert_same_bits(save_static(tmp_path), calibrate=True, dense_share=None)


def test_means_of_fewer_cells_at_the_edges_are_dense(tmp_path):
    report = assert_same_bits(save_static(tmp_path, averaged))
    assert why_dense(report) == "QLinearAveragePool whose windows at the edges count fewer cells"


@pytest.mark.parametrize("batch", [1, "N"])
def test_dynamic_scales_run_image_by_image(batch, tmp_path):
    """One scale for all images of a batch would mix them."""
    report = assert_same_bits(save_dynamic(tmp_path, batch=batch))
    assert not any(node.incremental for node in report.nodes)
    assert all("DynamicQuantizeLinear) takes its scale from all that it reads" in node.reason for node in report.nodes)


def test_a_dynamic_scale_inside_of_one_operator_runs_image_by_image(tmp_path):
    """As ONNX Runtime writes it after optimising: an output of the fused operator has the batch as its first axis."""
    path = save_dynamic(tmp_path)
    model = onnx.load(path)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    (product,) = (node for node in model.graph.node if node.op_type == "MatMulInteger")
    made = {output: node for node in model.graph.node for output in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}
    quantised = made[product.input[0]]
    scaled = readers[readers[product.output[0]].output[0]]
    scale = made[scaled.input[1]].input[1]
    fused = onnx.helper.make_node(
        "DynamicQuantizeMatMul", [quantised.input[0], product.input[1], scale, product.input[3]], [scaled.output[0]], "fused",
        domain="com.microsoft",
    )  # fmt: skip
    before = list(model.graph.node).index(scaled)
    model.graph.node.insert(before, fused)
    for node in (scaled, made[scaled.input[0]], made[scaled.input[1]], product, quantised):
        model.graph.node.remove(node)
    onnx.save(model, path)
    assert_same_bits(path)
