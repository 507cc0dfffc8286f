"""Approximate explanations from Python: off they are exact to the bit; on they say what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import Builder, save
from onnx import helper

import kcompiler
from kcompiler import SamplingPlan
from kcompiler.options import Options
from kcompiler.passes.lowering import select
from kcompiler.pipeline import compile_file
from kcompiler.runtime.bundle.plans import EVERYTHING
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.maps.heatmap import HeatMap

SHAPE = (3, 40, 44)


@pytest.fixture(scope="module")
def explainer(tmp_path_factory):
    model = save("residual", tmp_path_factory.mktemp("model") / "model.onnx", *SHAPE[1:])
    return kcompiler.load(kcompiler.compile(model, patch=(4, 6), thresholds=[0.15]), threads=1)


@pytest.fixture
def image():
    return np.random.default_rng(5).standard_normal(SHAPE, dtype=np.float32)


@pytest.mark.parametrize(
    "plan", [EVERYTHING, SamplingPlan(share=1.0, expected_ssim=1.0), SamplingPlan(method="drill-down", step=3, share=1.0)]
)
def test_with_every_approximation_off_the_map_is_exact_to_the_bit(explainer, image, plan):
    exact = explainer.explain(image, stride=2, target=1)
    found = explainer.explain(image, stride=2, target=1, quality=plan)
    np.testing.assert_array_equal(found.scores, exact.scores)
    assert found.unoccluded == exact.unoccluded
    assert found.exact
    assert found.complete


def test_sampled_scores_are_the_models_and_the_rest_is_estimated(explainer, image):
    exact = explainer.explain(image, stride=1, target=1)
    found = explainer.explain(image, stride=1, target=1, quality=SamplingPlan(step=4, share=0.2))
    assert found.evaluated == round(0.2 * exact.scores.size)
    assert not found.exact
    assert found.complete
    np.testing.assert_allclose(found.scores[found.sampled], exact.scores[found.sampled], rtol=1e-4, atol=1e-5)
    assert np.isfinite(found.scores).all()
    assert found.record()["plan"] == found.plan.model_dump()
    assert len(found.record()["sampled"]) == found.evaluated


def test_saved_maps_are_read_back_as_they_were(explainer, image, tmp_path):
    found = explainer.explain(image, stride=2, target=1, quality=SamplingPlan(step=4, share=0.2))
    found.save(tmp_path, "map")
    again = HeatMap.load(tmp_path / "map.json")
    for name in ("scores", "sampled", "ys", "xs"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.record() == found.record()
    (tmp_path / "map.json").write_text("{}")
    with pytest.raises(kcompiler.ImageError, match=r"map.json: is no heat map"):
        HeatMap.load(tmp_path / "map.json")


def test_variants_are_used_when_a_plan_says_so(explainer, image):
    exact = explainer.explain(image, stride=2, target=1)
    capped = explainer.explain(image, stride=2, target=1, quality=SamplingPlan(variant="tau0.15"))
    assert capped.evaluated == capped.scores.size
    assert not capped.exact
    assert capped.unoccluded == pytest.approx(exact.unoccluded, rel=1e-4)
    assert not np.allclose(capped.scores, exact.scores, rtol=1e-4)
    assert np.corrcoef(capped.scores.ravel(), exact.scores.ravel())[0, 1] > 0.5
    with pytest.raises(kcompiler.UsageError, match=r"variants in the bundle: exact, tau0\.15"):
        explainer.explain(image, quality=SamplingPlan(variant="tau0.7"))


def test_a_budget_ends_with_the_best_map_so_far(explainer, image):
    found = explainer.explain(image, stride=1, target=1, budget=1e-9)
    assert 0 < found.evaluated < found.scores.size
    assert not found.complete
    assert np.isfinite(found.scores).all()
    ample = explainer.explain(image, stride=2, target=1, budget=1e6)
    assert ample.complete
    assert ample.exact


def test_maps_get_better_batch_by_batch(explainer, image):
    exact = explainer.explain(image, stride=1, target=1)
    maps = list(explainer.refinements(image, stride=1, target=1))
    counts = [one.evaluated for one in maps]
    assert counts == sorted(counts)
    assert [one.complete for one in maps[-2:]] == [False, True]
    errors = [np.abs(one.scores - exact.scores).mean() for one in maps]
    assert errors[0] > errors[len(errors) // 2] > errors[-1]
    np.testing.assert_allclose(maps[-1].scores, exact.scores, rtol=1e-4, atol=1e-5)


def test_interrupted_approximations_keep_an_estimate_and_are_resumed(explainer, image):
    plan = SamplingPlan(step=4, share=0.5)

    def stop(progress):
        if progress.done > 150:
            raise KeyboardInterrupt

    with pytest.raises(kcompiler.Interrupted) as caught:
        explainer.explain(image, stride=1, target=1, quality=plan, progress=stop)
    partial = caught.value.heat_map
    assert np.isfinite(partial.scores).all()
    assert not partial.complete
    counted = []
    resumed = explainer.explain(image, stride=1, target=1, quality=plan, resume=partial, progress=counted.append)
    whole = explainer.explain(image, stride=1, target=1, quality=plan)
    assert counted[-1].done == resumed.evaluated - partial.evaluated
    assert resumed.evaluated == whole.evaluated
    exact, sampled = explainer.explain(image, stride=1, target=1), resumed.sampled
    np.testing.assert_allclose(resumed.scores[sampled], exact.scores[sampled], rtol=1e-4, atol=1e-5)


def test_scores_of_an_earlier_run_stay_as_they_are_under_another_plan(explainer, image):
    """The plan that goes on may never ask for them: its estimates must not take their place."""

    def stop(progress):
        if progress.done > 150:
            raise KeyboardInterrupt

    exact = explainer.explain(image, stride=1, target=1)
    with pytest.raises(kcompiler.Interrupted) as caught:
        explainer.explain(image, stride=1, target=1, progress=stop)
    first = caught.value.heat_map
    plan = SamplingPlan(step=8, share=0.1)
    second = explainer.explain(image, stride=1, target=1, quality=plan, resume=first)
    assert (second.sampled & first.sampled).sum() == first.evaluated
    np.testing.assert_allclose(second.scores[second.sampled], exact.scores[second.sampled], rtol=1e-4, atol=1e-5)
    third = explainer.explain(image, stride=1, target=1, resume=second)
    assert third.exact
    np.testing.assert_allclose(third.scores, exact.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quality", [0.0, -1, 1.5, float("nan"), "good", True, None])
def test_qualities_that_are_none(explainer, image, quality):
    with pytest.raises(kcompiler.UsageError, match="quality is"):
        explainer.explain(image, quality=quality)


def test_a_bundle_that_is_not_tuned_says_so(explainer, image):
    with pytest.raises(kcompiler.UsageError, match="tuned for nothing; run 'kcompiler tune'"):
        explainer.explain(image, quality=0.9)


@pytest.mark.parametrize("budget", [0, -1, float("inf"), float("nan")])
def test_budgets_that_are_none(explainer, image, budget):
    with pytest.raises(kcompiler.UsageError, match="budget is"):
        explainer.explain(image, budget=budget)


def squashed(path, operator, **attributes):
    """A tiny classifier behind ``operator``, with a shape in between that must not be in the way."""
    b = Builder(3)
    model = b.model(b.relu(b.conv("image", 6, pads=[1, 1, 1, 1])), 24, 28)
    scores = model.graph.output[0].name
    model.graph.node.append(helper.make_node(operator, [scores], ["squashed"], **attributes))
    model.graph.node.append(helper.make_node("Identity", ["squashed"], ["probabilities"]))
    model.graph.output[0].name = "probabilities"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path, scores


@pytest.mark.parametrize(("operator", "attributes"), [("Softmax", {"axis": 1}), ("Sigmoid", {}), ("LogSoftmax", {"axis": -1})])
def test_logits_are_found_behind_what_squashes_them(operator, attributes, tmp_path):
    path, scores = squashed(tmp_path / "model.onnx", operator, **attributes)
    explainer = kcompiler.load(kcompiler.compile(path, patch=4))
    image = np.random.default_rng(0).standard_normal((3, 24, 28), dtype=np.float32)
    logit = explainer.explain(image, stride=4, target=2)
    output = explainer.explain(image, stride=4, target=2, score="output")
    drop = explainer.explain(image, stride=4, target=2, score="drop")
    assert (logit.score, output.score, drop.score) == ("logit", "output", "drop")
    np.testing.assert_allclose(drop.scores, logit.unoccluded - logit.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(drop.drop, logit.drop, rtol=1e-5, atol=1e-6)
    model = onnx.load(path)
    del model.graph.node[-2:]
    model.graph.output[0].name = scores
    onnx.save(model, tmp_path / "cut.onnx")
    cut = kcompiler.load(kcompiler.compile(tmp_path / "cut.onnx", patch=4))
    np.testing.assert_allclose(logit.scores, cut.explain(image, stride=4, target=2).scores, rtol=1e-4, atol=1e-5)
    assert explainer.outputs(image, [[0, 0]]).shape == (1, 5)


def test_models_without_logits_say_so(explainer, image):
    assert explainer.explain(image, stride=8).score == "output"
    with pytest.raises(kcompiler.UsageError, match="does not end in a softmax or sigmoid"):
        explainer.explain(image, score="logit")
    with pytest.raises(kcompiler.UsageError, match="expected one of auto, output, logit, drop"):
        explainer.explain(image, score="best")


def saturated(path):
    """Every probability of it rounds to 1."""
    path, _ = squashed(path, "Sigmoid")
    model = onnx.load(path)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == gemm.input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(5, 30, np.float32), bias.name))
    onnx.save(model, path)
    return path


def test_saturated_probabilities_are_said(tmp_path):
    path = saturated(tmp_path / "model.onnx")
    explainer = kcompiler.load(kcompiler.compile(path, patch=4))
    image = np.random.default_rng(0).standard_normal((3, 24, 28), dtype=np.float32)
    (warning,) = explainer.explain(image, target=0, score="output").warnings
    assert "saturated" in warning
    assert explainer.explain(image, target=0).warnings == ()


def test_logits_are_verified_as_the_output_is(tmp_path, monkeypatch):
    """Probabilities that round to 1 hide a broken lowering; what they are made from does not."""
    gemm = next(one for one in select.LOWERINGS["Conv"] if one.name == "gemm")

    def off_by_a_percent(site):
        lowered = gemm.emit(site)
        return site.computed(rows=site.emit("Mul", lowered.rows, site.emit.constant(np.float32(1.01))))

    path = saturated(tmp_path / "model.onnx")
    monkeypatch.setitem(select.LOWERINGS, "Conv", [replace(gemm, emit=off_by_a_percent)])
    with pytest.raises(kcompiler.CheckFailed, match="disagrees with full inference") as failed:
        compile_file(path, Options(patch=(4, 4), dense_share=2.0))
    assert "sigmoid" not in str(failed.value), "the probabilities agree"


def test_an_approximate_variant_that_is_not_sound_is_not_written(tmp_path, monkeypatch):
    """Whatever is approximated: covering the image with its own pixels changes nothing."""
    path = save("residual", tmp_path / "model.onnx", *SHAPE[1:])
    broken = Engine.unoccluded

    def unoccluded(self, *arguments):
        return broken(self, *arguments) * (1.0 if self.variant.name == "exact" else 1.02)

    monkeypatch.setattr(Engine, "unoccluded", unoccluded)
    with pytest.raises(kcompiler.CheckFailed, match=r"variant is not sound \(tau0.15: .*own pixels is off by"):
        kcompiler.compile(path, patch=(4, 6), thresholds=[0.15])
    monkeypatch.setattr(Engine, "unoccluded", broken)
    monkeypatch.setattr(Engine, "evaluate_all", infinite(Engine.evaluate_all))
    with pytest.raises(kcompiler.CheckFailed, match=r"variant is not sound \(tau0.15: .*not finite"):
        kcompiler.compile(path, patch=(4, 6), thresholds=[0.15])


def infinite(evaluate_all):
    def found(self, *arguments):
        return evaluate_all(self, *arguments) + (0.0 if self.variant.name == "exact" else np.float32(np.inf))

    return found
