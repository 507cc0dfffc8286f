"""Weights above 2 GB, which no ONNX file can hold inside: run with ``-m large``."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper

import kcompiler
from kcompiler.runtime.measuring.check import check, sample_positions

CLASSES = 10
WIDTH = 4096
CELLS = 46 * 64 * 46  # of the map in front of the fully connected layer: 2.2 GB of weights


def large_model(folder):
    """Conv and a fully connected layer of 2.2 GB, written as external data row by row."""
    builder = Builder()
    x = builder.relu(builder.conv("image", 64, 3))
    flat = builder.node("Flatten", x)
    hidden = builder.node("MatMul", flat, "large")
    scores = builder.node("MatMul", hidden, builder.weight(WIDTH, CLASSES, scale=WIDTH**-0.5))
    large = TensorProto(name="large", data_type=TensorProto.FLOAT, dims=[CELLS, WIDTH], data_location=TensorProto.EXTERNAL)
    large.external_data.add(key="location", value="large.bin")
    rng = np.random.default_rng(0)
    with (folder / "large.bin").open("wb") as stream:
        for _ in range(64):
            stream.write((rng.standard_normal((CELLS // 64, WIDTH), dtype=np.float32) * CELLS**-0.5).data)
    graph = helper.make_graph(
        builder.nodes,
        "large",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS, 48, 48])],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, [1, CLASSES])],
        [*builder.weights, large],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.large
def test_weights_above_two_gigabytes(tmp_path):
    path = large_model(tmp_path)
    assert (tmp_path / "large.bin").stat().st_size > 2 << 30
    saved = kcompiler.compile(path, patch=8).save(tmp_path / "model.kc")
    assert (saved / "weights.bin").stat().st_size < 1.01 * (tmp_path / "large.bin").stat().st_size + 1e6, "stored once"
    explainer = kcompiler.load(saved, providers=["cpu"])
    comparison = check(explainer, sample_positions((48, 48), (8, 8), 12, seed=0))
    assert comparison.agrees, comparison.reason
