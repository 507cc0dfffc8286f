"""The oracle of what normalising does: the source file, as exported, run by ONNX Runtime on covered images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from everywhere import NEVER_DENSE
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from kcompiler.bundle import Bundle
from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.report import NodeReport
from kcompiler.runtime.explainer import Explainer

HEIGHT, WIDTH = 12, 14
PATCH = (3, 4)
FILL = (0.7, -1.2, 3.0)
Network = Callable[[Builder, int], str]
"""Adds nodes of an opset to a builder, and returns the name of their output: a row of numbers for each image."""


def integers(b: Builder, *values: int) -> str:
    return b.constant(values, np.int64)


def mean(b: Builder, opset: int, x: str, axes: list[int], keepdims: int = 1) -> str:
    if opset < 18:
        return b.node("ReduceMean", x, axes=axes, keepdims=keepdims)
    return b.node("ReduceMean", x, integers(b, *axes), keepdims=keepdims)


def mean_head(b: Builder, opset: int, x: str) -> str:
    """The mean over the cells of what a last convolution makes of a map."""
    return mean(b, opset, b.relu(b.conv(x, 5)), [2, 3], keepdims=0)


def save_model(
    folder: Path,
    builder: Builder,
    output: str,
    inputs: Sequence[onnx.ValueInfoProto],
    *,
    opset: int = 18,
    ir_version: int = 8,
    value: onnx.ValueInfoProto | None = None,
    domains: Sequence[str] = (),
    name: str = "given.onnx",
) -> Path:
    """A model of what a builder made, its inputs and its output declared as they are handed over."""
    declared = value if value is not None else helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    graph = helper.make_graph(builder.nodes, "tiny", list(inputs), [declared], builder.weights)
    path = folder / name
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), path)
    return path


def save(folder: Path, network: Network, opset: int, batch: int | str = 1) -> Path:
    """A model of what ``network`` makes of the image, which is to be one row of numbers, or is made one."""
    builder = Builder()
    output = network(builder, opset)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, CHANNELS, HEIGHT, WIDTH])
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, "numbers"])
    graph = helper.make_graph(builder.nodes, "tiny", [image], [value], builder.weights)
    path = folder / f"opset_{opset}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def covered_images() -> tuple[FloatArray, list[tuple[int, int]], FloatArray]:
    """An image [C, H, W], every position, and the image covered at each: [N, C, H, W]."""
    image = np.random.default_rng(1).standard_normal((CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    positions = [(y, x) for y in range(HEIGHT - PATCH[0] + 1) for x in range(WIDTH - PATCH[1] + 1)]
    covered = np.repeat(image[None], len(positions), axis=0)
    for one, (y, x) in zip(covered, positions, strict=True):
        one[:, y : y + PATCH[0], x : x + PATCH[1]] = np.reshape(FILL, (CHANNELS, 1, 1))
    return image, positions, covered


def source_outputs(path: Path, tensor: str, images: FloatArray) -> FloatArray:
    """``tensor`` of the file, an output or not, for each of ``images`` alone: [N, ...]. ONNX Runtime runs a copy beside it."""
    model = onnx.load(path, load_external_data=False)
    if all(value.name != tensor for value in model.graph.output):
        model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    copy = path.with_name(f"oracle_{path.name}")
    onnx.save(model, copy)
    session = InferenceSession(copy, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.stack([session.run([tensor], {name: image[None]})[0][0] for image in images])


def assert_equals_outputs(path: Path, tensor: str, **options: object) -> Bundle:
    """Compiles ``path`` and compares it with ``tensor`` of the file itself, raw outputs at every position."""
    bundle = compile_file(path, Options(patch=PATCH, dense_share=NEVER_DENSE, **options))  # type: ignore[arg-type]
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    image, positions, covered = covered_images()
    expected = source_outputs(path, tensor, covered).reshape(len(covered), -1)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the patch is to move the outputs"
    np.testing.assert_allclose(explainer.outputs(image, positions, fill=FILL), expected, rtol=1e-4, atol=1e-5)
    return bundle


def assert_equals_source(
    path: Path,
    *,
    options: Options | None = None,
    feeds: Mapping[str, np.ndarray] | None = None,
    fill: Sequence[float] = FILL,
    image: np.ndarray | None = None,
    name: str = "image",
    rtol: float = 1e-4,
    oracle: Path | None = None,
) -> list[NodeReport]:
    """Compiles ``path``, compares it with the file itself at every position, and returns the report of its nodes.

    Args:
        path: a model file.
        options: to compile by.
        feeds: what the file's other inputs are fed with.
        fill: one number a channel.
        image: [C, H, W] in the file's own type, whatever its layout.
        name: of the image input.
        oracle: a file that gives the same, where ONNX Runtime does not run this one on any image.
        rtol: relative tolerance, larger where the file's outputs are rounded to another type.
    """
    bundle = compile_file(path, options or Options(patch=PATCH, dense_share=NEVER_DENSE))
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    session = InferenceSession(oracle or path, providers=["CPUExecutionProvider"])
    if image is None:
        image = np.random.default_rng(1).standard_normal((CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    names = [value.name for value in session.get_outputs()]
    output = bundle.manifest.output if bundle.manifest.output in names else names[0]
    last = bundle.manifest.layout == "NHWC"
    positions = [(y, x) for y in range(HEIGHT - PATCH[0] + 1) for x in range(WIDTH - PATCH[1] + 1)]
    expected = []
    for y, x in positions:
        covered = image.copy()
        covered[:, y : y + PATCH[0], x : x + PATCH[1]] = np.reshape(fill, (CHANNELS, 1, 1)).astype(image.dtype)
        given = covered.transpose(1, 2, 0) if last else covered
        expected.append(np.ravel(session.run([output], {name: given[None], **(feeds or {})})[0]))
    assert np.ptp(np.asarray(expected, np.float64), axis=0).max() > 1e-3, "the patch is to move the outputs"
    laid_out = image.transpose(1, 2, 0) if last else image
    np.testing.assert_allclose(explainer.outputs(laid_out, positions, fill=fill), expected, rtol=rtol, atol=1e-5)
    return list(bundle.report.nodes)
