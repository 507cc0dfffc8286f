"""Quantised models: the very numbers of the file as given, at every position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from everywhere import NEVER_DENSE
from networks import CHANNELS
from onnxruntime import InferenceSession
from quantised import HEIGHT, WIDTH, save_dynamic, save_static

from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.report import Report

PATCH = (3, 4)
FILL = (0.7, -1.2, 3.0)


def assert_same_bits(path: Path, dense_share: float | None = NEVER_DENSE) -> Report:
    """Compiles ``path`` and compares it with the file itself at every position: no output is off by a quantum, or less."""
    bundle = compile_file(path, Options(patch=PATCH, dense_share=dense_share))
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).standard_normal((CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    positions = [(y, x) for y in range(HEIGHT - PATCH[0] + 1) for x in range(WIDTH - PATCH[1] + 1)]
    expected = []
    for y, x in positions:
        covered = image.copy()
        covered[:, y : y + PATCH[0], x : x + PATCH[1]] = np.reshape(FILL, (CHANNELS, 1, 1))
        expected.append(session.run(None, {"image": covered[None]})[0].ravel())
    assert len(np.unique(expected, axis=0)) > 10, "the patch is to move the outputs"
    np.testing.assert_array_equal(explainer.outputs(image, positions, fill=FILL), expected)
    return bundle.report


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantised_and_dequantised_around_operators(opset, activations, per_channel, tmp_path):
    assert_same_bits(save_static(tmp_path, opset=opset, activations=activations, per_channel=per_channel))


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("batch", [1, "N"])
def test_operators_on_integers(activations, batch, tmp_path):
    assert_same_bits(save_static(tmp_path, operators=True, activations=activations, batch=batch))


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
