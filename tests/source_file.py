"""The oracle of all outputs: the source file, as exported, run by ONNX Runtime on images that are covered by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from networks import CHANNELS, Builder
from onnx import TensorProto, helper
from onnxruntime import InferenceSession, SessionOptions

from kcompiler.bundle import Bundle
from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.explainer import Explainer

HEIGHT, WIDTH = 12, 14
PATCH = (3, 4)
FILL = (0.7, -1.2, 3.0)
NEVER_DENSE = 2.0
"""As ``dense_share``: more than any region's share of its map."""
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


def positions_of(size: tuple[int, int], patch: tuple[int, int] = PATCH, *, cut_off: bool = False) -> IntArray:
    """Every position (y, x) of a patch in an image of ``size``: int64 [N, 2]; those that the edges cut off, too, if so asked."""
    first = [1 - side if cut_off else 0 for side in patch]
    last = [whole - 1 if cut_off else whole - side for whole, side in zip(size, patch, strict=True)]
    return np.array([(y, x) for y in range(first[0], last[0] + 1) for x in range(first[1], last[1] + 1)], np.int64)


def cover_by_hand(
    image: np.ndarray, positions: npt.ArrayLike, fill: npt.ArrayLike = FILL, patch: tuple[int, int] = PATCH
) -> np.ndarray:
    """The image [C, H, W] covered at each position, in its own type: [N, C, H, W].

    Args:
        image: of any type.
        positions: [N, 2], (y, x); of a patch that leaves the image, what of it lies inside covers.
        fill: one number, one a channel, or a picture [C, H, W].
        patch: (height, width).
    """
    numbers = np.asarray(fill)
    picture = np.broadcast_to(numbers.reshape(-1, 1, 1) if numbers.ndim < 3 else numbers, image.shape).astype(image.dtype)
    covered = np.repeat(image[None], len(np.asarray(positions)), axis=0)
    for one, (y, x) in zip(covered, np.asarray(positions).tolist(), strict=True):
        rows, columns = slice(max(y, 0), y + patch[0]), slice(max(x, 0), x + patch[1])
        one[:, rows, columns] = picture[:, rows, columns]
    return covered


def covered_images() -> tuple[FloatArray, list[tuple[int, int]], FloatArray]:
    """An image [C, H, W], every position, and the image covered at each: [N, C, H, W]."""
    image = np.random.default_rng(1).standard_normal((CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    positions = positions_of((HEIGHT, WIDTH))
    return image, [(y, x) for y, x in positions.tolist()], cover_by_hand(image, positions)


def run_file(
    path: Path, images: np.ndarray, tensor: str = "", *, feeds: Mapping[str, np.ndarray] | None = None, batch: int | None = 1
) -> np.ndarray:
    """What ONNX Runtime makes of each of ``images`` alone by the file as it was given: [N, ...].

    Args:
        path: a model file.
        images: [N, ...] as the file takes one of them, without the batch.
        tensor: of the file, an output or not (then a copy beside the file has it as one more output); else the first output.
        feeds: what the other inputs are fed with.
        batch: how many of the same image a run takes, of which the first counts; None where the file has no batch.
    """
    model = onnx.load(path, load_external_data=False)
    given = path
    if tensor and all(value.name != tensor for value in model.graph.output):
        model.graph.output.append(onnx.ValueInfoProto(name=tensor))
        given = path.with_name(f"oracle_{path.name}")
        onnx.save(model, given)
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = InferenceSession(given, options, providers=["CPUExecutionProvider"])
    feeds = feeds or {}
    (name,) = (value.name for value in session.get_inputs() if value.name not in feeds)
    names = [tensor or session.get_outputs()[0].name]
    found = []
    for image in images:
        (output,) = session.run(names, {name: image if batch is None else np.repeat(image[None], batch, axis=0), **feeds})
        assert batch is None or len(output) == batch, "the first axis of the output is to be the batch"
        found.append(output if batch is None else output[0])
    return np.stack(found)


def assert_equals_source(
    path: Path,
    tensor: str = "",
    *,
    image: np.ndarray | None = None,
    fill: Sequence[float] = FILL,
    feeds: Mapping[str, np.ndarray] | None = None,
    batch: int | None = 1,
    oracle: Path | None = None,
    rtol: float = 1e-4,
    same_bits: bool = False,
    **options: object,
) -> Bundle:
    """Compiles ``path``, and compares raw outputs with the file itself at every position, cut off by the edges, too.

    What runs by full inference is compared so, and by the compiled graphs, which other stacks run.

    Args:
        path: a model file.
        tensor: of the file, with which to compare; the explained output if none is given.
        image: [C, H, W] in the file's own type, whatever its layout; else a random one of float32.
        fill: one number a channel.
        feeds: see :func:`run_file`, as of ``batch``.
        oracle: a file that gives the same, where ONNX Runtime does not run this one on any image.
        rtol: relative tolerance, larger where the file's outputs are rounded to another type.
        same_bits: no output may be off at all.
        options: to compile by, beside a patch and that nothing runs dense which need not.
    """
    bundle = compile_file(path, Options(**{"patch": PATCH, "dense_share": NEVER_DENSE, **options}))  # type: ignore[arg-type]
    manifest = bundle.manifest
    if image is None:
        image = np.random.default_rng(1).standard_normal(manifest.shape, dtype=np.float32)
    positions = positions_of(manifest.shape[1:], manifest.patch, cut_off=True)
    covered = cover_by_hand(image, positions, fill, manifest.patch)
    order = (1, 2, 0) if manifest.layout == "NHWC" else (0, 1, 2)
    laid_out = covered.transpose(0, *(1 + axis for axis in order))
    expected = run_file(oracle or path, laid_out, tensor or manifest.output, feeds=feeds, batch=batch)
    expected = expected.reshape(len(positions), -1)
    assert np.ptp(expected.astype(np.float64), axis=0).max() > 1e-2, "the patch is to move the outputs"
    assert len(np.unique(expected, axis=0)) > len(positions) / 10, "positions are to be told apart"
    for graphs in (False, True) if manifest.exact.whole or manifest.few else (False,):
        explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=graphs)
        found = explainer.outputs(image.transpose(order), positions, fill=fill)
        if same_bits:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-5)
    return bundle
