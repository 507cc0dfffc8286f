"""Third-party graphs: the onnx wheel's light models (opset 9, weights made in the graph, batch written in).

Their weights are constants, so that their outputs hardly move; each is also compiled with random weights drawn in.
"""

from __future__ import annotations

import pytest
from light_models import LIGHT, with_random_weights

import kcompiler
from kcompiler.runtime.exactness.compare import compare
from kcompiler.runtime.inputs.images import fill_image
from kcompiler.runtime.measuring.check import check, random_image, sample_positions

MODELS = [
    "vgg19",
    "resnet50",
    "squeezenet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "shufflenet",
    "bvlc_alexnet",
    "zfnet512",
]


EQUAL_WEIGHTS = pytest.mark.xfail(
    strict=True, reason="sums of equal weights: logits of up to 1e31, whose maps are flatter than the order of summation"
)


LONG = {
    ("vgg19", "constant"), ("vgg19", "random"), ("resnet50", "constant"), ("densenet121", "constant"),
    ("inception_v1", "constant"), ("inception_v2", "constant"), ("zfnet512", "constant"), ("resnet50", "random"),
    ("inception_v2", "random"), ("zfnet512", "random"), ("bvlc_alexnet", "constant"),
}  # fmt: skip


def marks(name: str, weights: str) -> list[pytest.MarkDecorator]:
    """A graph of each kind with random weights is tested at once; the larger ones of a kind take a minute."""
    equal = [EQUAL_WEIGHTS] if (name, weights) == ("vgg19", "constant") else []
    return [*equal, pytest.mark.slow] if (name, weights) in LONG else equal


@pytest.mark.parametrize(
    ("name", "weights"),
    [pytest.param(name, weights, marks=marks(name, weights)) for name in MODELS for weights in ("constant", "random")],
)
def test_light_model_equals_full_inference(name, weights, tmp_path):
    path = LIGHT / f"light_{name}.onnx"
    if weights == "random":
        path = with_random_weights(path, tmp_path / "model.onnx")
    explainer = kcompiler.load(kcompiler.compile(path, patch=16), providers=["cpu"])
    comparison = check(explainer, sample_positions(explainer.manifest.shape[1:], (16, 16), 16, seed=1), seed=1)
    assert comparison.agrees, comparison.reason
    dense = [node for node in explainer.manifest.report.nodes if not node.incremental]
    assert all(node.reason for node in dense)


@pytest.mark.slow
def test_output_of_equal_weights_equals_full_inference():
    """What vgg19's logits do not, its probabilities do, and with no allowance for noise."""
    explainer = kcompiler.load(kcompiler.compile(LIGHT / "light_vgg19.onnx", patch=16), providers=["cpu"])
    positions = sample_positions(explainer.manifest.shape[1:], (16, 16), 16, seed=1)
    image = random_image(explainer.manifest.shape, 1)
    full = explainer.full_inference().outputs(image, fill_image(0.5, explainer.manifest.shape), positions, (16, 16))
    comparison = compare(explainer.outputs(image, positions, 0.5), full, lambda numbers: [full[numbers]])
    assert comparison.agrees, comparison.reason
