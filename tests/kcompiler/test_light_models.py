"""Third-party graphs: the onnx wheel's light models (opset 9, weights made in the graph, batch written in).

Their weights are constants, so that their outputs hardly move; each is also compiled with random weights drawn in.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import kcompiler
from kcompiler.runtime.check import check, sample_positions

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
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


def with_random_weights(path: Path, target: Path) -> Path:
    """ConstantOfShape weights of two axes or more become He-scaled random ones; scales and variances stay as they are."""
    model = onnx.load(path)
    rng = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or len(shapes[node.input[0]]) < 2:
            kept.append(node)
            continue
        shape = shapes[node.input[0]]
        values = rng.standard_normal(shape).astype(np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        model.graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], 1, shape.tolist()))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("weights", ["constant", "random"])
@pytest.mark.parametrize("name", MODELS)
def test_light_model_equals_full_inference(name, weights, tmp_path):
    path = LIGHT / f"light_{name}.onnx"
    if weights == "random":
        path = with_random_weights(path, tmp_path / "model.onnx")
    explainer = kcompiler.load(kcompiler.compile(path, patch=16), providers=["cpu"])
    comparison = check(explainer, sample_positions(explainer.manifest.shape[1:], (16, 16), 16, seed=1), seed=1)
    assert comparison.agrees, comparison.reason
    dense = [node for node in explainer.manifest.report.nodes if not node.incremental]
    assert all(node.reason for node in dense)
