"""One sigmoid output is two classes: target 1 is the output, target 0 what is left to one; sign and label follow the class."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from networks import Builder
from onnx import helper
from source_file import FILL, HEIGHT, NEVER_DENSE, PATCH, WIDTH, covered_images, mean, run_file, save
from typer.testing import CliRunner

import kcompiler
from kcompiler.cli import app
from kcompiler.options import Approximation, Options
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.pipeline import compile_file
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.peers import captum, monai, xplique
from kcompiler.runtime.tuning.simulation import Family
from kcompiler.runtime.tuning.trials import Goal, Sample, _scores

ROWS, COLS = HEIGHT - PATCH[0] + 1, WIDTH - PATCH[1] + 1


def one_number(b: Builder, opset: int) -> str:
    x = b.node("Mul", mean(b, opset, b.relu(b.conv("image", 4)), [2, 3]), b.weight(4, 1, 1))
    b.nodes.append(helper.make_node("Reshape", [b.conv(x, 1, 1), b.constant([0, 1], np.int64)], ["logit"]))
    return "logit"


def probability(b: Builder, opset: int) -> str:
    return b.node("Sigmoid", one_number(b, opset))


def recipe(*labels: str) -> kcompiler.Preprocessing:
    return kcompiler.Preprocessing(
        size=(HEIGHT, WIDTH), resize="stretch", interpolation="bilinear", channel_order="RGB", scale=1 / 255, mean=(0, 0, 0),
        std=(1, 1, 1), labels=labels,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"), probability, 18)


@pytest.fixture(scope="module")
def explainer(model):
    options = Options(patch=PATCH, dense_share=NEVER_DENSE, approximations=(Approximation(Thresholds(0.4)),))
    return kcompiler.load(compile_file(model, options), providers=["cpu"], threads=1)


@pytest.fixture(scope="module")
def source(model):
    """Of the file itself: probability and logit at every position [ROWS, COLS], and those of the uncovered image."""
    image, _, covered = covered_images()
    (output,) = (value.name for value in onnx.load(model).graph.output)
    images = np.concatenate([covered, image[None]])
    p, z = (run_file(model, images, name)[:, 0] for name in (output, "logit"))
    return (p[:-1].reshape(ROWS, COLS), z[:-1].reshape(ROWS, COLS)), (p[-1], z[-1])


def explained(explainer, **settings):
    return explainer.explain(covered_images()[0], stride=1, fill=FILL, **settings)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("score", ["output", "logit", "drop", "auto"])
def test_both_classes_at_every_position(target, score, explainer, source):
    (p, z), (whole_p, whole_z) = source
    probabilities, whole = (p, whole_p) if target == 1 else (1 - p, 1 - whole_p)
    logits, whole_logit = (z, whole_z) if target == 1 else (-z, -whole_z)
    expected = {"output": probabilities, "logit": logits, "auto": logits, "drop": whole_logit - logits}[score]
    found = explained(explainer, target=target, score=score)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5)
    assert found.unoccluded == pytest.approx(whole if score == "output" else whole_logit, rel=1e-4, abs=1e-5)
    assert (found.target, found.label) == (target, str(target))


def test_it_is_said(explainer):
    assert explainer.manifest.report.notes[0].startswith(
        "the one output is a sigmoid's, so it speaks of two classes: target 1 is"
    )


def test_raw_outputs_stay_the_model_s_own(explainer, source):
    image, positions, _ = covered_images()
    found = explainer.outputs(image, positions, fill=FILL)
    assert found.shape == (len(positions), 1)
    np.testing.assert_allclose(found[:, 0], source[0][0].ravel(), rtol=1e-4, atol=1e-5)


def test_the_larger_probability_is_the_default(explainer):
    seen = set()
    for scale in (-8, -3, 1, 3, 8):
        image = np.float32(scale) + covered_images()[0]
        p = explainer.outputs(image, [(0, 0)], fill=image)[0, 0]
        found = explainer.explain(image, stride=4)
        assert found.target == int(p > 0.5)
        assert found.unoccluded >= 0, "the logit of the more probable class"
        seen.add(found.target)
    assert seen == {0, 1}


def test_all_ways_to_a_score_agree(explainer, source):
    image, _, _ = covered_images()
    (_, z), (whole, _) = source
    both = explainer.explain_targets(image, "all", stride=1, fill=FILL)
    assert [one.target for one in both] == [0, 1]
    np.testing.assert_allclose([one.scores for one in both], [-z, z], rtol=1e-4, atol=1e-5)
    (largest,) = explainer.explain_targets(image, 1, stride=1, fill=FILL, score="output")
    assert largest.target == int(whole > 0.5)
    plan = kcompiler.SamplingPlan(step=2, gradual=True)
    np.testing.assert_allclose(explained(explainer, target=0, quality=plan).scores, -z, rtol=1e-4, atol=1e-5)
    sample = Sample(explainer.check_image(image), both[0])
    capped = Family("capped", (kcompiler.SamplingPlan(variant="tau0.4"),))
    found = _scores(explainer, capped, sample, Goal(stride=1, fill=FILL))(np.arange(z.size))
    assert np.corrcoef(found, -z.ravel())[0, 1] > 0.5


def test_maps_of_other_tools_turn_with_the_class(explainer, source):
    image = covered_images()[0]
    for tool in (captum, xplique):
        one, other = (tool(explainer, image, target) for target in (1, 0))
        np.testing.assert_allclose(one, -other, rtol=1e-3, atol=1e-5)
        assert np.abs(one).max() > 1e-3
    maps, classes = monai(explainer, image, mode=0.0)
    assert maps.shape == (1, 1, HEIGHT, WIDTH)
    assert not classes.any()


def test_patches_of_their_own(explainer):
    image = covered_images()[0]
    p, other = (explainer.explain(image, stride=3, target=target, score="output", fill="patch-mean") for target in (1, 0))
    np.testing.assert_allclose(p.scores, 1 - other.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("labels", "names"), [(("healthy", "ill"), ("healthy", "ill")), (("ill",), ("not ill", "ill"))])
def test_labels_name_the_classes(labels, names, model, source):
    explainer = kcompiler.load(kcompiler.compile(model, patch=PATCH, preprocessing=recipe(*labels)))
    assert explainer.labels == names
    (_, z), _ = source
    for target, sign in zip(names, (-1, 1), strict=True):
        found = explained(explainer, target=target)
        assert found.label == target
        np.testing.assert_allclose(found.scores, sign * z, rtol=1e-4, atol=1e-5)


def test_three_labels_are_refused(model):
    with pytest.raises(UsageError, match=r"3 labels, the model puts out 1 numbers; .*\(or two: one sigmoid output"):
        kcompiler.compile(model, patch=PATCH, preprocessing=recipe("a", "b", "c"))


def test_one_number_of_no_sigmoid_is_one_class(tmp_path):
    explainer = kcompiler.load(kcompiler.compile(path := save(tmp_path, one_number, 18), patch=PATCH))
    assert explained(explainer).target == 0
    with pytest.raises(UsageError, match="target is 1, expected 0 to 0"):
        explained(explainer, target=1)
    with pytest.raises(UsageError, match=r"2 labels, the model puts out 1 numbers; expected one label each, or none$"):
        kcompiler.compile(path, patch=PATCH, preprocessing=recipe("a", "b"))


def test_the_command_line(model, source, tmp_path):
    kcompiler.compile(model, patch=PATCH, preprocessing=recipe("healthy", "ill")).save(tmp_path / "m.kc")
    np.save(tmp_path / "one.npy", covered_images()[0])
    for target, index in (("1", 1), ("healthy", 0)):
        out = tmp_path / target
        call = ["explain", str(tmp_path / "m.kc"), str(tmp_path / "one.npy"), "-o", str(out), "--stride", "1", "--target", target]
        result = CliRunner().invoke(app, call)
        assert result.exit_code == 0, result.output
        record = json.loads((out / "one.json").read_text())
        assert (record["target"], record["label"]) == (index, ("healthy", "ill")[index])
