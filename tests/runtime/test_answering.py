"""What heat maps say of the uncovered image: against the file as given."""

from __future__ import annotations

import numpy as np
import pytest
from networks import NETWORKS, Builder
from onnx import TensorProto, helper
from source_file import run_file

import kcompiler
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.inputs.preprocessing import Preprocessing
from kcompiler.runtime.inputs.view import View

SIZE, SCALE = (20, 20), 40.0
IMAGE = np.random.default_rng(0).standard_normal((3, *SIZE), dtype=np.float32)


def classifier(path, operator: str):
    """A network whose large logits, also an output of the file, become probabilities."""
    builder = Builder()
    model = builder.model(NETWORKS["chain"](builder), *SIZE, classes=1 if operator == "Sigmoid" else 5)
    logits = model.graph.output[0].name
    scaled = helper.make_node("Mul", [logits, "scale"], ["logits"])
    squashed = helper.make_node(operator, ["logits"], ["probabilities"], **({} if operator == "Sigmoid" else {"axis": 1}))
    model.graph.node.extend([scaled, squashed])
    model.graph.initializer.append(helper.make_tensor("scale", TensorProto.FLOAT, [], [SCALE]))
    shape = model.graph.output[0].type.tensor_type.shape
    values = [(name, [dim.dim_value for dim in shape.dim]) for name in ("probabilities", "logits")]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in values)
    path.write_bytes(model.SerializeToString())
    return path


def explainer_of(path, operator: str):
    recipe = Preprocessing(
        size=SIZE, resize="stretch", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="RGB",
        labels=("yes",) if operator == "Sigmoid" else tuple("abcde"),
    )  # fmt: skip
    return kcompiler.load(kcompiler.compile(path, patch=5, output="probabilities", preprocessing=recipe), threads=1)


@pytest.fixture(params=["Softmax", "Sigmoid", "LogSoftmax"])
def compiled(request, tmp_path):
    path = classifier(tmp_path / "model.onnx", request.param)
    return request.param, path, explainer_of(path, request.param)


@pytest.mark.parametrize("score", ["output", "logit", "drop"])
def test_probability_and_logit_are_those_of_the_file(compiled, score):
    operator, path, explainer = compiled
    found = explainer.explain(IMAGE, stride=8, score=score, target=0).answer
    probabilities, logits = (run_file(path, IMAGE[None], name)[0] for name in ("probabilities", "logits"))
    if operator == "Sigmoid":
        probabilities, logits = np.append(1 - probabilities, probabilities), np.append(-logits, logits)
    assert found.kind == ("log-probability" if operator == "LogSoftmax" else "probability")
    assert found.target.label == ("not yes" if operator == "Sigmoid" else "a")
    assert found.target.output == pytest.approx(probabilities[0], rel=1e-3, abs=1e-4)
    assert found.target.logit == pytest.approx(logits[0], rel=1e-4, abs=1e-3)
    order = np.argsort(-probabilities, kind="stable")
    assert [each.output for each in found.top] == pytest.approx(probabilities[order], rel=1e-3, abs=1e-4)
    assert found.off_by >= 2.0**-18 * (np.abs(probabilities).max() if score == "output" else np.abs(logits).max()) * 0.999


def test_the_rounding_of_a_probability_is_what_its_logits_make_of_it(tmp_path):
    """To first order: the slope of the sigmoid, times what the logit may be off by."""
    explainer = explainer_of(classifier(tmp_path / "model.onnx", "Sigmoid"), "Sigmoid")
    answer = explainer.explain(IMAGE, stride=8, score="output", target=1).answer
    probability, logit = answer.target.output, answer.target.logit
    from_logit = probability * (1 - probability) * 2.0**-18 * abs(logit)
    assert answer.off_by == pytest.approx(from_logit + 2.0**-18 * max(probability, 1 - probability), rel=0.05)


def test_every_way_to_a_map_says_the_same(compiled):
    _, _, explainer = compiled
    expected = explainer.explain(IMAGE, stride=8, target=0).answer
    sampled = explainer.explain(IMAGE, stride=2, target=0, quality=SamplingPlan(step=3, share=0.5, expected_ssim=0.9)).answer
    several = explainer.explain_targets(IMAGE, [0], stride=8)[0].answer
    for found in (sampled, several):
        assert (found.kind, found.target.label) == (expected.kind, expected.target.label)
        assert found.target.output == pytest.approx(expected.target.output, rel=1e-5)
    title = explainer.explain(IMAGE, stride=8, target=0).title
    assert f"{expected.kind} {expected.target.output:.4g}, logit {expected.target.logit:.4g}" in title
    assert explainer.explain(IMAGE, stride=8).in_report("a", None, View.whole(SIZE)).row.numbers[1] is not None
