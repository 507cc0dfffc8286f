"""The onnx wheel's light models: graphs of third parties, whose weights the graphs make of one number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from kcompiler.runtime.arrays import FloatArray

HUGE = 1e6
"""Activations are clipped to this behind a layer whose statistics are not right yet."""
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def with_random_weights(path: Path, target: Path) -> Path:
    """ConstantOfShape weights of two axes or more become He-scaled random ones, those of batch normalisations what they mean.

    As they are, each normalisation divides by seven, and after a hundred nothing of the image is left.
    """
    model = onnx.load(path)
    rng = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    affine = {name: near for node in norms for name, near in zip(node.input[1:5], (1.0, 0.5, 0.0, 1.0), strict=True)}
    lifted = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Unsqueeze"}
    for node in model.graph.node:  # scale and shift as nodes of their own
        if node.op_type in ("Mul", "Add"):
            affine |= {lifted[name]: 1.0 if node.op_type == "Mul" else 0.5 for name in node.input if name in lifted}
    kept, drawn = [], {}
    for node in model.graph.node:
        shape = shapes[node.input[0]] if node.op_type == "ConstantOfShape" else ()
        if node.op_type == "ConstantOfShape" and node.output[0] in affine:
            drawn[node.output[0]] = affine[node.output[0]] + rng.uniform(-0.3, 0.3, shape).astype(np.float32)
        elif len(shape) >= 2:
            drawn[node.output[0]] = (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for name, values in drawn.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape))
    for name, values in _statistics(model, norms).items():
        next(one for one in model.graph.initializer if one.name == name).CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, target)
    return target


def _statistics(model: onnx.ModelProto, norms: Sequence[onnx.NodeProto]) -> dict[str, FloatArray]:
    """Running means and variances that are those of an image of noise: a layer more is right after each run."""
    if not norms:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.ir_version = max(model.ir_version, 4)  # from which on initializers that are inputs, too, can be fed
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input[0] for node in norms))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {tensor.name for tensor in model.graph.initializer}
    image = next(value for value in session.get_inputs() if value.name not in given)
    feeds = {image.name: np.random.default_rng(1).standard_normal(image.shape).astype(np.float32)}
    names = [node.input[0] for node in norms]
    for _ in norms:
        moments = {}
        for node, value in zip(norms, session.run(names, feeds), strict=True):
            value = np.clip(np.nan_to_num(value), -HUGE, HUGE)
            moments[node.input[3]], moments[node.input[4]] = value.mean(axis=(0, 2, 3)), value.var(axis=(0, 2, 3)) + 1e-5
        settled = all(
            name in feeds and np.allclose(values, feeds[name], rtol=0.02, atol=0.02) for name, values in moments.items()
        )
        feeds |= moments
        if settled:
            break
    return {name: values for name, values in feeds.items() if name != image.name}
