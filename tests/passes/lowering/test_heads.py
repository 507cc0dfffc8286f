"""Means over all cells are updated without adding up all cells one by one, which rounds off alike thousands of times."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import Builder
from source_file import NEVER_DENSE, assert_equals_source

import kcompiler
from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.images import cover, fill_image
from kcompiler.runtime.measuring.check import check, sample_positions

SIZE = 96, 128
CELLS = SIZE[0] * SIZE[1]
ROUNDING = 3e-6
"""Relative. Of adding one by one, 6e-5."""


@pytest.mark.parametrize("patch", [(5, 7), (90, 120)], ids=["small", "nearly all"])
@pytest.mark.parametrize("lowering", ["gemm", "regions"])
@pytest.mark.parametrize(("head", "over"), [("GlobalAveragePool", CELLS), ("ReduceMean", CELLS), ("ReduceSum", 1)])
def test_means_of_large_even_maps_are_near_those_in_float64(head, over, lowering, patch, tmp_path):
    builder = Builder()
    weights = builder.constant(np.eye(3).reshape(3, 3, 1, 1))
    x = builder.relu(builder.node("Conv", "image", weights))
    axes = () if head == "GlobalAveragePool" else (builder.constant([2, 3], np.int64),)
    onnx.save(builder.model(builder.node(head, x, *axes), *SIZE, classes=None), tmp_path / "model.onnx")
    bundle = compile_file(tmp_path / "model.onnx", Options(patch=patch, dense_share=NEVER_DENSE, prefer={"Conv": lowering}))
    assert {node.lowering for node in bundle.report.nodes if node.operator == "Conv"} == {lowering}
    image, positions = np.full((1, 3, *SIZE), 0.7123, np.float32), sample_positions(SIZE, patch, 12, 0)
    found = Explainer(bundle.folder, providers=["cpu"], threads=1).outputs(image, positions, fill=0.3)
    covered = cover(image, fill_image(0.3, (3, *SIZE)), positions, patch)
    expected = covered.astype(np.float64).sum(axis=(2, 3)) / over
    assert np.abs(found / expected - 1).max() < ROUNDING


@pytest.mark.parametrize("patch", [(5, 7), (14, 9)])
def test_a_cell_that_outweighs_all_others_can_be_covered(patch, tmp_path):
    """A mean of exponentials: what is left when the bright spot is covered is no part of the whole that float32 could tell."""
    builder = Builder()
    x = builder.conv("image", 8, pads=[1, 1, 1, 1])
    x = builder.node("Exp", builder.node("Mul", x, builder.constant(3.0)))
    mean = builder.node("GlobalAveragePool", x)
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.node("Log", mean), 24, 24), path)
    image = np.random.default_rng(1).standard_normal((3, 24, 24)).astype(np.float32)
    image[..., 10:13, 10:13] = 6.0
    bundle = assert_equals_source(path, patch=patch, image=image, fill=(0.0, 0.0, 0.0))
    assert next(node for node in bundle.report.nodes if node.operator == "GlobalAveragePool").incremental is False


def test_a_mean_of_the_image_alone_compiles(tmp_path):
    path = tmp_path / "model.onnx"
    builder = Builder()
    onnx.save(builder.model(builder.node("GlobalAveragePool", "image"), *SIZE, classes=None), path)
    image, positions = np.random.default_rng(0).random((1, 3, *SIZE), np.float32), sample_positions(SIZE, (5, 7), 12, 0)
    found = kcompiler.load(kcompiler.compile(path, patch=(5, 7))).outputs(image, positions, fill=0.3)
    expected = cover(image, fill_image(0.3, (3, *SIZE)), positions, (5, 7)).astype(np.float64).mean(axis=(2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_mean_that_may_be_infinite_is_left_to_full_inference(tmp_path):
    """Zero times infinity is no number: the logarithm of what a ReLU makes zero."""
    builder = Builder()
    x = builder.node("Log", builder.relu(builder.conv("image", 4, pads=[1, 1, 1, 1])))
    mean = builder.node("Clip", builder.node("GlobalAveragePool", x), builder.constant(-9.0), builder.constant(9.0))
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(mean, 20, 24), path)
    bundle = compile_file(path, Options(patch=(3, 4), dense_share=NEVER_DENSE))
    assert bundle.manifest.exact.whole
    assert "infinite" in bundle.report.nodes[0].reason
    assert check(kcompiler.load(bundle), sample_positions((20, 24), (3, 4), 12, 0)).agrees
