"""Profiles of models whose indices are computed by themselves, and of those with a model for them."""

import numpy as np
import pytest
from networks import save
from source_file import NEVER_DENSE

import kcompiler
from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.profile import profile


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = save("residual", tmp_path_factory.mktemp("profile") / "model.onnx")
    return compile_file(model, Options((5, 5), device="cuda", dense_share=NEVER_DENSE))


def profiled(bundle, device):
    explainer = kcompiler.load(bundle, providers=["cpu"], compiled_for=device)
    positions = make_grid((20, 20), (5, 5), 1).positions
    baseline = explainer.exact.baseline(np.zeros((1, 3, 20, 20), np.float32), 0.5)
    return profile(explainer, baseline, [positions[:64], positions[64:128]])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_shares_add_up(bundle, device):
    assert sum(operator.share for operator in profiled(bundle, device)) == pytest.approx(1)


def test_index_arithmetic_is_no_part_of_a_model_that_has_another_for_it(bundle):
    own, others = (sum(operator.count for operator in profiled(bundle, device)) for device in ("cpu", "cuda"))
    assert 0 < others < own / 2
