"""The choice of lowerings, dense tail and batch: within the error budget, and never slower than full inference."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from math import inf
from types import SimpleNamespace

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Builder, save
from onnx import load as load_onnx
from onnx import save as save_onnx
from onnxruntime import InferenceSession

import kcompiler
from kcompiler import analysed, pipeline, verified
from kcompiler.options import Options
from kcompiler.passes import assumed
from kcompiler.passes.choosing import calibrate, choice
from kcompiler.passes.choosing.budget import Candidate, within_budget
from kcompiler.passes.lowering.select import LOWERINGS
from kcompiler.passes.lowering.work import DEFAULT_RATES
from kcompiler.pipeline import analyse, compile_file
from kcompiler.runtime.inputs.images import cover, fill_image
from kcompiler.runtime.measuring.check import check, sample_positions

ANY = LOWERINGS["Conv"][0]
candidates = st.builds(
    lambda seconds, error: Candidate(ANY, seconds, error), st.floats(1e-6, 1.0), st.sampled_from([1e-7, 1e-6, 1e-5, 1e-4])
)
nodes = st.dictionaries(
    st.integers(), st.lists(candidates, min_size=1, max_size=5).map(lambda of: [*of, Candidate(ANY, 2.0, 0.0)]), min_size=1
)


@given(nodes, st.sampled_from([0.0, 1e-6, 1e-5, 1e-3, inf]))
def test_errors_stay_within_the_budget(of, budget):
    chosen = within_budget(of, budget)
    assert np.sqrt(sum(one.error**2 for one in chosen.values())) <= budget
    if budget == inf:
        assert all(chosen[name].seconds == min(one.seconds for one in known) for name, known in of.items())


def wide_chain(path, size=96):
    """Wide enough that regions pay and that transforms do."""
    builder = Builder()
    x = "image"
    for _ in range(4):
        x = builder.relu(builder.conv(x, 64, 3, pads=[1, 1, 1, 1]))
    save_onnx(builder.model(builder.node("GlobalAveragePool", x), size, size), path)
    return path


def lowerings(bundle) -> set[str]:
    return {node.lowering for node in bundle.report.nodes if node.operator == "Conv" and node.incremental}


def test_transforms_are_chosen_where_they_pay_and_direct_turns_them_off(tmp_path):
    path = wide_chain(tmp_path / "model.onnx")
    chosen, direct = kcompiler.compile(path, patch=8), kcompiler.compile(path, patch=8, convolution="direct")
    assert any(name.startswith("winograd") for name in lowerings(chosen))
    assert lowerings(direct) <= {"gemm", "regions"}
    assert chosen.report.transform_error > 0 == direct.report.transform_error
    assert chosen.report.predicted_speedup > direct.report.predicted_speedup > 1


def test_calibration_measures_and_stays_exact(tmp_path):
    bundle = kcompiler.compile(wide_chain(tmp_path / "model.onnx", 48), patch=8, calibrate=True, threads=1)
    explainer = kcompiler.load(bundle)
    comparison = check(explainer, sample_positions((48, 48), (8, 8), 40, 1))
    assert comparison.agrees, comparison.reason
    found = explainer.manifest.calibration
    assert found.products > 0
    assert found.moved > 0
    convolutions = [node.node for node in bundle.report.nodes if node.operator == "Conv"]
    assert set(found.seconds) <= set(convolutions)
    assert any(len(of) > 1 and all(seconds > 0 for seconds in of.values()) for of in found.seconds.values())


def test_calibration_leaves_the_most_exact_to_choose_from(tmp_path):
    """Candidates that are predicted to be slow are not run, but a small budget may need them."""
    options = Options(patch=(8, 8), calibrate=True, threads=1)
    analysed = analyse(wide_chain(tmp_path / "model.onnx", 48), options, tmp_path)
    for budget in (0.0, 1e-7, 1e-5):
        assert analysed.chooser.choose(budget, analysed.choice.batch).error <= budget


def test_calibration_tells_maps_of_other_channels_apart(tmp_path, monkeypatch):
    """Each is measured by itself: by a clock that goes faster and faster, no two of what is measured take the same."""
    looked = count()
    monkeypatch.setattr(calibrate, "time", SimpleNamespace(perf_counter=lambda: float(next(looked) ** 2)))
    monkeypatch.setattr(pipeline, "measured_rates", lambda machine: DEFAULT_RATES)
    builder = Builder()
    pooled = [
        builder.node("MaxPool", builder.conv("image", channels, 1), kernel_shape=[3, 3], strides=[2, 2], channels=channels)
        for channels in (96, 384)
    ]
    x = builder.node("Add", *(builder.conv(one, 8, 1) for one in pooled))
    path = tmp_path / "model.onnx"
    save_onnx(builder.model(x, 64, 64), path)
    bundle = compile_file(path, Options(patch=(8, 8), calibrate=True, threads=1))
    pools = sorted(node.node for node in bundle.report.nodes if node.operator == "MaxPool")
    few, many = (bundle.manifest.calibration.seconds[pool] for pool in pools)
    assert few.keys() == many.keys()
    assert len({*few.values(), *many.values()}) == len(few) + len(many)


def test_1x1_convolutions_take_maps_as_they_are(tmp_path, monkeypatch):
    """What a depthwise convolution leaves as maps is not made rows of (here in one batch, not in several micro-batches)."""
    monkeypatch.setattr(assumed, "CACHE_BYTES", 1 << 40)
    builder = Builder()
    x = builder.conv("image", 32, 3, pads=[1, 1, 1, 1])
    x = builder.relu(builder.conv(x, 32, 3, pads=[1, 1, 1, 1], group=32))
    x = builder.conv(builder.relu(builder.conv(x, 64, 1)), 32, 3, pads=[1, 1, 1, 1])
    save_onnx(builder.model(builder.node("GlobalAveragePool", x), 96, 96), tmp_path / "model.onnx")
    bundle = kcompiler.compile(tmp_path / "model.onnx", patch=8)
    assert [node.lowering for node in bundle.report.nodes if node.operator == "Conv"][1:3] == ["regions", "regions"]
    graph = gs.import_onnx(load_onnx(bundle.folder / "incremental.onnx", load_external_data=False))
    (pointwise,) = (node for node in graph.nodes if node.op == "Conv" and node.attrs["kernel_shape"] == [1, 1])
    assert [pointwise.i().op, pointwise.i().i().op] == ["Relu", "Conv"], "no Transpose between"


def test_a_model_that_would_not_gain_runs_whole(tmp_path):
    """A patch as large as the image changes everything."""
    bundle = kcompiler.compile(wide_chain(tmp_path / "model.onnx", 32), patch=32)
    assert not any(node.incremental for node in bundle.report.nodes)
    assert all("of full inference's time" in node.reason for node in bundle.report.nodes)
    explainer = kcompiler.load(bundle)
    comparison = check(explainer, np.zeros((1, 2), np.int64))
    assert comparison.agrees, comparison.reason


@pytest.mark.parametrize("patch", [1, 5, (4, 7)])
def test_models_that_run_whole_are_exact_everywhere(patch, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "WORTHWHILE", 0.0)
    bundle = kcompiler.compile(save("residual", tmp_path / "model.onnx"), patch=patch)
    assert not any(node.incremental for node in bundle.report.nodes)
    explainer = kcompiler.load(bundle)
    h, w = explainer.manifest.patch
    everywhere = np.array([(y, x) for y in range(20 - h + 1) for x in range(20 - w + 1)])
    comparison = check(explainer, everywhere, fill=(0.7, -1.2, 3.0))
    assert comparison.agrees, comparison.reason

    image = np.random.default_rng(0).standard_normal((1, 3, 20, 20), dtype=np.float32)
    baseline, incremental = (InferenceSession(bundle.folder / f"{name}.onnx") for name in ("baseline", "incremental"))
    names = [value.name for value in baseline.get_outputs()]
    feeds = dict(zip(names, baseline.run(names, {baseline.get_inputs()[0].name: image}), strict=True))
    feeds |= {"positions": everywhere, "fill": np.full((400, 3), 0.7, np.float32)}
    (found,) = incremental.run(None, feeds)
    np.testing.assert_allclose(found, explainer.outputs(image, everywhere, fill=0.7), rtol=1e-4, atol=1e-5)


def test_few_positions_run_by_full_inference_and_forced_plans_never_do(tmp_path):
    explainer = kcompiler.load(kcompiler.compile(wide_chain(tmp_path / "model.onnx", 48), patch=8))
    few = explainer.manifest.few
    assert 1 < few < 64
    image = np.random.default_rng(0).standard_normal((1, 3, 48, 48), dtype=np.float32)
    assert not explainer.exact.baseline(image, 0.0, few - 1).feeds
    assert explainer.exact.baseline(image, 0.0, few).feeds
    positions = sample_positions((48, 48), (8, 8), few, 0)
    many = explainer.outputs(image, positions)
    by_full = np.concatenate([explainer.outputs(image, positions[number : number + 1]) for number in range(len(positions))])
    np.testing.assert_allclose(many, by_full, rtol=1e-4, atol=1e-5)
    covered = cover(image, fill_image(0.0, (3, 48, 48)), positions[:1], (8, 8))
    np.testing.assert_array_equal(by_full[:1], explainer.full_inference().run(covered))
    forced = compile_file(tmp_path / "model.onnx", Options(patch=(8, 8), dense_share=2.0))
    assert forced.manifest.few == 0


def test_tighter_budgets_end_without_transforms_and_then_with_the_operator_itself(tmp_path):
    options = Options(patch=(8, 8))
    analysed = analyse(wide_chain(tmp_path / "model.onnx"), options, tmp_path)
    *tighter, last = [one.choice for one in analysed.ever_more_exact(options)]
    errors = [one.error for one in tighter]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors) > 1
    assert errors[-1] == 0
    convolutions = [node.name for node in analysed.graph.nodes if node.op == "Conv"]
    assert "gemm" in {tighter[-1].layouts.lowerings[name] for name in convolutions}
    assert {last.layouts.lowerings[name] for name in convolutions} == {"regions"}
    assert {one.batch for one in tighter} == {analysed.choice.batch}
    assert last.batch == analysed.chooser.preferring({"Conv": "regions"}).choose(0.0).batch


def test_compilation_falls_back_until_verification_is_content(tmp_path, monkeypatch):
    """What a verifier that finds transforms too inexact makes of a model is direct convolutions."""
    seen = []

    class Strict(verified.Verifier):
        def compared(self, device="cpu"):
            found = super().compared(device)
            seen.append(found)
            direct = len(seen) == len(analysed.ERROR_BUDGETS)
            return found if direct else replace(found, output_error=2.0, agrees=False, reason="as told")

    monkeypatch.setattr(verified, "Verifier", Strict)
    for module in (analysed, pipeline):
        monkeypatch.setattr(module, "ERROR_BUDGETS", (1.0, 0.0))
    bundle = compile_file(wide_chain(tmp_path / "model.onnx"), Options(patch=(8, 8)))
    assert len(seen) == 2
    assert lowerings(bundle) <= {"gemm", "regions"}
    weights = (bundle.folder / "weights.bin").stat().st_size
    monkeypatch.undo()
    direct = kcompiler.compile(tmp_path / "model.onnx", patch=8, convolution="direct")
    assert weights == (direct.folder / "weights.bin").stat().st_size, "nothing is left of what was rejected"


def test_transforms_that_do_not_use_up_the_margin_are_written_again(tmp_path, monkeypatch):
    """No attempt keeps the margin, the first as little as the last: the bundle is that of the first."""
    model, seen = wide_chain(tmp_path / "model.onnx"), []
    usual = compile_file(model, Options(patch=(8, 8)))

    class Flat(verified.Verifier):
        def compared(self, device="cpu"):
            seen.append(lowerings(self._explainer(device).manifest))
            return replace(super().compared(device), output_error=0.1, map_error=0.9)

    monkeypatch.setattr(verified, "Verifier", Flat)
    bundle = compile_file(model, Options(patch=(8, 8)))
    assert len(seen) > 1
    assert seen[-1] <= {"gemm", "regions"}
    assert lowerings(bundle) == seen[0]
    assert any(name.startswith("winograd") for name in seen[0])
    for name in ("full.onnx", "baseline.onnx", "incremental.onnx", "weights.bin"):
        assert (bundle.folder / name).read_bytes() == (usual.folder / name).read_bytes()
    assert not [note for note in bundle.report.notes if "takes" in note]


@pytest.mark.parametrize(("closely", "kept"), [(0.9, False), (0.7, True)])
def test_a_quick_look_that_leaves_it_open_is_followed_by_a_close_one(tmp_path, monkeypatch, closely, kept):
    """Transforms that few positions show within bounds, but not well within, stay only if more positions show the same."""
    seen = []

    class Doubtful(verified.Verifier):
        def compared(self, device="cpu"):
            found = super().compared(device)
            seen.append(self.count)
            direct = lowerings(self._explainer(device).manifest) <= {"gemm", "regions"}
            error = closely if self.count == verified.VERIFIED_CLOSELY else 0.6
            return replace(found, output_error=0.1 if direct else error, map_error=0.0)

    monkeypatch.setattr(verified, "Verifier", Doubtful)
    for module in (analysed, pipeline):
        monkeypatch.setattr(module, "ERROR_BUDGETS", (1.0, 0.0))
    bundle = compile_file(wide_chain(tmp_path / "model.onnx"), Options(patch=(8, 8)))
    quick, close = verified.VERIFIED_POSITIONS, verified.VERIFIED_CLOSELY
    assert seen == [quick, close] + [quick] * (not kept)
    assert (lowerings(bundle) <= {"gemm", "regions"}) is not kept
