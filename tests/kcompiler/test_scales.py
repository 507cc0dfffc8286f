"""Exactness has no units: outputs multiplied by a power of ten change neither what is chosen nor what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import kcompiler

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
SCALES = (1e-4, 1e4)
NETWORKS = [
    "demo", "mobilenet_v2",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "densenet121", "inception_v3", "vgg16")),
]  # fmt: skip


def source(name: str, folder: Path, *options: str) -> onnx.ModelProto:
    path = ROOT / "models/demo/demo.onnx"
    if name != "demo":
        path = folder / f"{name}.onnx"
        command = [sys.executable, "-m", "models.export", name, "-o", path, *options]
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return onnx.load(path)


def scaled_layer(model: onnx.ModelProto, scale: float) -> onnx.ModelProto:
    """The last layer times ``scale``: its weights and biases."""
    scaled = onnx.ModelProto()
    scaled.CopyFrom(model)
    last = [node for node in scaled.graph.node if node.op_type == "Gemm"][-1]
    for tensor in scaled.graph.initializer:
        if tensor.name in last.input[1:]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(scale), tensor.name))
    return scaled


def scaled_output(model: onnx.ModelProto, scale: float) -> onnx.ModelProto:
    """The output times ``scale``."""
    scaled = onnx.ModelProto()
    scaled.CopyFrom(model)
    graph = scaled.graph
    (output,) = graph.output
    graph.initializer.append(numpy_helper.from_array(np.float32(scale), "scale"))
    graph.node.append(helper.make_node("Mul", [output.name, "scale"], ["scaled"]))
    graph.output[0].name = "scaled"
    return scaled


def chosen(model: onnx.ModelProto) -> dict[str, str]:
    """The lowering of every convolution; that it compiles is the verdict."""
    nodes = kcompiler.compile(model, patch=16).report.nodes
    return {node.node: node.lowering for node in nodes if node.operator == "Conv"}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_scale_of_outputs_changes_nothing(name, tmp_path):
    model = source(name, tmp_path)
    as_exported = chosen(model)
    assert any(as_exported.values()), "something is incremental"
    for scale in SCALES:
        for scaled in (scaled_layer, scaled_output):
            assert chosen(scaled(model, scale)) == as_exported, (scaled.__name__, scale)


def test_the_scale_of_logits_behind_a_softmax_changes_nothing(tmp_path):
    model = source("resnet18", tmp_path, "--softmax", "--initialisation", "he")
    as_exported = chosen(model)
    for scaled, scale in ((scaled_layer, 1e4), (scaled_layer, 1e-4), (scaled_output, 100.0)):
        assert chosen(scaled(model, scale)) == as_exported, (scaled.__name__, scale)
