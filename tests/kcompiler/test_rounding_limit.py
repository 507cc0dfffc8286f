"""A model at the limit of float32 is not refused: it runs whole, and the report says why. A defect still is refused."""

from __future__ import annotations

import numpy as np
import pytest
from networks import save
from source_file import NEVER_DENSE

from kcompiler import verified
from kcompiler.options import Options
from kcompiler.passes.rewriting import store
from kcompiler.pipeline import compile_file
from kcompiler.runtime.errors import CheckFailed
from kcompiler.runtime.exactness import compare
from kcompiler.runtime.explainer import Explainer

OPTIONS = Options(patch=(4, 6), dense_share=NEVER_DENSE)


@pytest.fixture
def nothing_is_allowed(monkeypatch):
    """So that the rounding of any order of sums but full inference's own is too much, but rounding all the same."""
    noise = compare.allowed_noise
    monkeypatch.setattr(compare, "OUTPUT_SHARE", 0.0)
    monkeypatch.setattr(compare, "MAP_SHARE", 0.0)
    monkeypatch.setattr(compare, "allowed_noise", lambda *given: 1e-4 * noise(*given))
    monkeypatch.setattr(compare, "ROUNDING", 1e5)


def test_what_rounding_alone_exceeds_runs_whole_and_says_so(nothing_is_allowed, tmp_path):
    bundle = compile_file(save("residual", tmp_path / "model.onnx", 20, 24), OPTIONS)
    assert bundle.manifest.exact.whole
    reasons = {node.reason for node in bundle.report.nodes if not node.incremental}
    assert any("with regions recomputed" in reason and "allowed is" in reason for reason in reasons)
    assert bundle.report.largest_error == 0
    assert [note for note in bundle.report.notes if note.startswith("runs whole: with the fastest algorithms together: ")]
    assert Explainer(bundle.folder, providers=["cpu"]).outputs(np.zeros((3, 20, 24), np.float32), [(0, 0)]).shape == (1, 5)


def test_a_compiled_graph_that_does_not_load_gives_way_to_full_inference(monkeypatch, tmp_path):
    write = verified.write_variant

    def broken(analysed, *given):
        if not analysed.choice.plan.all_dense:
            analysed.rewritten.graph.nodes[0].op = "Unheard"
        return write(analysed, *given)

    monkeypatch.setattr(verified, "write_variant", broken)
    monkeypatch.setattr(store.onnx.checker, "check_model", lambda *given, **options: None)
    bundle = compile_file(save("residual", tmp_path / "model.onnx", 20, 24), OPTIONS)
    assert bundle.manifest.exact.whole
    assert any("does not load" in note for note in bundle.report.notes)


def test_what_is_no_rounding_is_refused_as_a_defect(monkeypatch, tmp_path):
    """Regions without their activations: no bound on the rounding of transforms mends that."""
    write = verified.write_variant

    def with_defect(analysed, *given):
        for node in analysed.rewritten.graph.nodes:
            node.op = "Identity" if node.op == "Relu" else node.op
        return write(analysed, *given)

    monkeypatch.setattr(verified, "write_variant", with_defect)
    with pytest.raises(CheckFailed, match=r"disagrees with full inference.*This is a defect of kcompiler"):
        compile_file(save("residual", tmp_path / "model.onnx", 20, 24), OPTIONS)
