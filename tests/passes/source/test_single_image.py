"""Models of an image without a batch, and of a batch that cannot be freed, against the source file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from everywhere import NEVER_DENSE
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from onnxruntime import InferenceSession
from source_file import HEIGHT, PATCH, WIDTH, covered_images, integers, mean_head, save_model

from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.errors import ModelError
from kcompiler.runtime.explainer import Explainer

FILL = (0.7, -1.2, 3.0)


def compiled(path, expected):
    """The bundle's report, after comparing raw outputs at every position with ``expected`` [N, K]."""
    bundle = compile_file(path, Options(patch=PATCH, dense_share=NEVER_DENSE))
    image, positions, _ = covered_images()
    found = Explainer(bundle.folder, providers=["cpu"], threads=1).outputs(image, positions, fill=FILL)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the patch is to move the outputs"
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    return bundle.report


def source(path):
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, {"image": given})[0]


def declared(*shape):
    return [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))]


@pytest.mark.parametrize("as_input", [True, False])
def test_an_image_without_a_batch_that_gets_one_is_incremental(as_input, tmp_path):
    """Axes of Unsqueeze as an input, and as an attribute."""
    b = Builder()
    opset = 18 if as_input else 11
    b.channels["image"] = CHANNELS
    x = b.node("Unsqueeze", "image", integers(b, 0)) if as_input else b.node("Unsqueeze", "image", axes=[0])
    path = save_model(tmp_path, b, mean_head(b, opset, x), declared(CHANNELS, HEIGHT, WIDTH), opset=opset)
    run, (_, _, covered) = source(path), covered_images()
    report = compiled(path, np.concatenate([run(one) for one in covered]))
    assert any(node.incremental for node in report.nodes if node.operator == "Conv")


def test_an_image_without_a_batch_runs_whole_and_alone(tmp_path):
    b = Builder()
    x = b.node("Mul", "image", b.weight(CHANNELS, 1, 1))
    x = b.node("ReduceMean", b.node("Sigmoid", x), integers(b, 1, 2), keepdims=0)
    path = save_model(tmp_path, b, x, declared(CHANNELS, HEIGHT, WIDTH))
    run, (_, _, covered) = source(path), covered_images()
    report = compiled(path, np.stack([run(one) for one in covered]))
    assert not any(node.incremental for node in report.nodes)


def test_a_batch_that_cannot_be_freed_runs_whole(tmp_path):
    """Four images in each run, whose numbers are reshaped across them and back."""
    b = Builder()
    x = b.relu(b.conv("image", 4, pads=[1, 1, 1, 1]))
    x = b.node("Reshape", x, integers(b, 2, 8, HEIGHT, WIDTH))
    x = b.node("Reshape", b.relu(x), integers(b, 4, 4, HEIGHT, WIDTH))
    b.channels[x] = 4
    path = save_model(tmp_path, b, mean_head(b, 18, x), declared(4, CHANNELS, HEIGHT, WIDTH))
    run, (_, _, covered) = source(path), covered_images()
    report = compiled(path, np.concatenate([run(np.repeat(one[None], 4, axis=0))[:1] for one in covered]))
    reasons = {node.reason for node in report.nodes}
    assert any("first axis" in reason or "batch" in reason for reason in reasons), reasons


def test_three_axes_that_are_no_picture_are_refused(tmp_path):
    b = Builder()
    output = b.node("ReduceMean", "image", integers(b, 1), keepdims=0)
    path = save_model(tmp_path, b, output, declared(7, 20, 30))
    with pytest.raises(ModelError, match=r"expected an input that is an image.*\[7, 20, 30\]"):
        compile_file(path, Options(patch=PATCH))
    assert onnx.load(path).graph.input[0].name == "image"
