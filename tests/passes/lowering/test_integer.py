"""8-bit integer products: close to the exact variant, and only where they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from networks import NETWORKS, save

import kcompiler
from kcompiler.options import Approximation, Options
from kcompiler.passes.lowering.integer import LARGEST, quantised
from kcompiler.pipeline import compile_file
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.positions import make_grid

NEVER_DENSE = 2.0
PREFER = {"Conv": "int8 gemm"}


@pytest.mark.parametrize("name", NETWORKS)
def test_integer_products_are_close_to_exact(name, tmp_path):
    """Every convolution in integers: errors are small beside what the patch changes."""
    model = save(name, tmp_path / "model.onnx", 20, 24)
    options = Options(patch=(4, 6), dense_share=NEVER_DENSE, prefer=PREFER, approximations=(Approximation(integers=True),))
    bundle = compile_file(model, options)
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=True)
    if "int8" not in explainer.engines:
        pytest.skip("no convolution in it that could be")
    image = np.random.default_rng(0).standard_normal((1, 3, 20, 24), dtype=np.float32)
    positions = make_grid((20, 24), (4, 6), 3).positions
    exact, integer = (explainer.engines[name] for name in ("exact", "int8"))
    expected = exact.evaluate_all(exact.baseline(image, 0.7), positions)
    found = integer.evaluate_all(integer.baseline(image, 0.7), positions)
    error = np.sqrt(np.mean((found - expected) ** 2, axis=0)) / expected.std(axis=0)
    assert 0 < error.max() < 0.15
    np.testing.assert_allclose(
        integer.unoccluded(integer.baseline(image, 0.7)), exact.unoccluded(exact.baseline(image, 0.7)), rtol=1e-3, atol=1e-4
    )


def test_no_processor_saturates():
    """Two products of an unsigned byte and a code fit 16 bits, in which processors without VNNI add them."""
    assert np.iinfo(np.int16).max >= 2 * 255 * LARGEST


def test_exact_variants_never_use_integers(tmp_path):
    bundle = compile_file(save("chain", tmp_path / "model.onnx", 20, 24), Options(patch=(4, 6), prefer=PREFER))
    assert [variant.name for variant in bundle.manifest.variants] == ["exact"]
    assert "MatMulInteger" not in bundle.report.incremental_operators


def test_int8_is_left_out_where_it_does_not_pay(tmp_path):
    bundle = kcompiler.compile(save("chain", tmp_path / "model.onnx", 20, 24), patch=4, int8=True)
    assert [variant.name for variant in bundle.manifest.variants] == ["exact"], "the convolutions have very few channels"


def test_codes_times_scales_are_nearest_to_the_weights():
    matrix = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    matrix[:, 3] = 0
    codes, scales = quantised(matrix)
    assert codes.dtype == np.int8
    assert np.abs(codes).max() == 63
    assert (np.abs(codes * scales - matrix) <= scales / 2 + 1e-7).all()
