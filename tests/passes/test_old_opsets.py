"""Models of old opsets, and what conversion and inlining leave behind: as incremental as new models, and exact.

The oracle is the source file, as exported, run by ONNX Runtime on covered images: not what normalising makes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from everywhere import NEVER_DENSE
from networks import CHANNELS, Builder
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from kcompiler.options import Options
from kcompiler.passes.convert import OPSET
from kcompiler.pipeline import compile_file
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.report import NodeReport

HEIGHT, WIDTH = 12, 14
PATCH = (3, 4)
FILL = (0.7, -1.2, 3.0)
OPSETS = [9, 10, 11, 13, 17]
Network = Callable[[Builder, int], str]


def integers(b: Builder, *values: int) -> str:
    return b.constant(values, np.int64)


def clip(b: Builder, opset: int, x: str) -> str:
    """As exporters write ReLU6, but with an upper end that is reached."""
    return b.node("Clip", x, min=0.0, max=0.6) if opset < 11 else b.node("Clip", x, b.constant(0.0), b.constant(0.6))


def mean(b: Builder, opset: int, x: str, axes: list[int], keepdims: int = 1) -> str:
    if opset < 18:
        return b.node("ReduceMean", x, axes=axes, keepdims=keepdims)
    return b.node("ReduceMean", x, integers(b, *axes), keepdims=keepdims)


def total(b: Builder, opset: int, x: str) -> str:
    return b.node("ReduceSum", x, axes=[1]) if opset < 13 else b.node("ReduceSum", x, integers(b, 1))


def cut(b: Builder, opset: int, x: str, axis: int, start: int, end: int) -> str:
    if opset < 10:
        return b.node("Slice", x, axes=[axis], starts=[start], ends=[end])
    return b.node("Slice", x, *(integers(b, number) for number in (start, end, axis)))


def pad(b: Builder, opset: int, x: str, mode: str) -> str:
    pads = [0, 0, 2, 1, 0, 0, 3, 2]
    return b.node("Pad", x, pads=pads, mode=mode) if opset < 11 else b.node("Pad", x, integers(b, *pads), mode=mode)


def resize(b: Builder, opset: int, x: str, mode: str, *scales: float) -> str:
    """From the corner, as all opsets can say it."""
    if opset == 10:
        return b.node("Resize", x, b.constant([1, 1, *scales]), mode=mode)
    if opset < 10:
        return b.node("Upsample", x, b.constant([1, 1, *scales]), mode=mode)
    regions, sizes = b.constant([]), b.constant([1, 1, *scales])
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return b.node("Resize", x, regions, sizes, mode=mode, **how)


FEATURES: dict[str, Callable[[Builder, int, str], str]] = {
    "clip": clip,
    "slice of channels": lambda b, opset, x: b.node("Concat", cut(b, opset, x, 1, 2, 4), cut(b, opset, x, 1, 0, 2), axis=1),
    "slice of cells": lambda b, opset, x: cut(b, opset, x, 2, 1, -2),
    "pad reflect": lambda b, opset, x: pad(b, opset, x, "reflect"),
    "pad edge": lambda b, opset, x: pad(b, opset, x, "edge"),
    "pad constant": lambda b, opset, x: pad(b, opset, x, "constant"),
    "linear": lambda b, opset, x: resize(b, opset, x, "linear", 2.0, 3.0),
    "linear, odd": lambda b, opset, x: resize(b, opset, x, "linear", 1.7, 2.4),
    "nearest": lambda b, opset, x: resize(b, opset, x, "nearest", 3.0, 2.0),
    "nearest, odd": lambda b, opset, x: resize(b, opset, x, "nearest", 2.4, 1.7),
    "centred channels": lambda b, opset, x: b.node("Sub", x, mean(b, opset, x, [1])),
    "sum of channels": lambda b, opset, x: b.node("Mul", x, total(b, opset, x)),
}
HEADS: dict[str, Callable[[Builder, int, str], str]] = {
    "mean": lambda b, opset, x: mean(b, opset, x, [2, 3], keepdims=0),
    "flat": lambda b, opset, x: b.node("Flatten", x),
}


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


def assert_equals_source(path: Path) -> list[NodeReport]:
    """Compiles ``path``, compares it with the file itself at every position, and returns the report of its nodes."""
    bundle = compile_file(path, Options(patch=PATCH, dense_share=NEVER_DENSE))
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).standard_normal((CHANNELS, HEIGHT, WIDTH), dtype=np.float32)
    positions = [(y, x) for y in range(HEIGHT - PATCH[0] + 1) for x in range(WIDTH - PATCH[1] + 1)]
    expected = []
    for y, x in positions:
        covered = image.copy()
        covered[:, y : y + PATCH[0], x : x + PATCH[1]] = np.reshape(FILL, (CHANNELS, 1, 1))
        expected.append(session.run(None, {"image": covered[None]})[0][0])
    assert np.ptp(expected, axis=0).max() > 1e-3, "the patch is to move the outputs"
    np.testing.assert_allclose(explainer.outputs(image, positions, fill=FILL), expected, rtol=1e-4, atol=1e-5)
    return list(bundle.report.nodes)


CASES = [*((feature, "flat") for feature in FEATURES), ("clip", "mean")]


@lru_cache
def decided(feature: str, head: str, opset: int) -> tuple[Counter[str], Counter[str]]:
    """How many nodes of each operator are incremental, and of each that is not the first word of the reason, which names none."""

    def network(b: Builder, written_in: int) -> str:
        x = FEATURES[feature](b, written_in, b.conv("image", 4, pads=[1, 1, 1, 1]))
        return HEADS[head](b, written_in, b.relu(b.conv(x, 5)))

    with TemporaryDirectory() as folder:
        nodes = assert_equals_source(save(Path(folder), network, opset))
    incremental = Counter(node.operator for node in nodes if node.incremental)
    return incremental, Counter(f"{node.operator} {node.reason.split()[0]}" for node in nodes if not node.incremental)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(("feature", "head"), CASES)
def test_old_opsets_are_as_incremental_as_new_ones(feature, head, opset):
    old, new = decided(feature, head, opset), decided(feature, head, OPSET)
    assert old == new
    assert old[1].total() == 1, "the head alone is not incremental"


@pytest.mark.parametrize("scales", [(0.5, 0.7), (0.6, 1.6), (2.4, 0.4), (1.0, 0.3)], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_resizes_that_shrink(mode, scales, tmp_path):
    """ONNX Runtime takes the cell behind where a map shrinks, axis by axis."""

    def network(b: Builder, opset: int) -> str:
        return HEADS["flat"](b, opset, b.conv(resize(b, opset, b.conv("image", 4), mode, *scales), 5, 2))

    nodes = assert_equals_source(save(tmp_path, network, 10))
    assert all(node.incremental for node in nodes if node.operator in ("Conv", "Resize"))


@pytest.mark.parametrize("opset", [10, OPSET])
def test_resize_whose_size_is_rounded_differently_runs_dense(opset, tmp_path):
    """10 cells times 2.3: 22 by shape inference, which takes 2.3 as the float32 below it, 23 in ONNX Runtime."""

    def network(b: Builder, written_in: int) -> str:
        x = resize(b, written_in, b.conv("image", 4), "linear", 2.3, 2.0)
        return HEADS["mean"](b, written_in, b.conv(x, 5, 2))

    nodes = assert_equals_source(save(tmp_path, network, opset))
    assert [node.reason for node in nodes if node.operator == "Resize"] == [
        "Resize to [22, 24] cells by ONNX shape inference but [23, 24] in ONNX Runtime"
    ]


def test_pad_with_a_number_of_old_opsets(tmp_path):
    def network(b: Builder, opset: int) -> str:
        x = b.node("Pad", b.conv("image", 4), pads=[0, 0, 2, 1, 0, 0, 3, 2], value=1.5)
        return HEADS["flat"](b, opset, b.conv(x, 5))

    assert_equals_source(save(tmp_path, network, 9))


def part_of(b: Builder, x: str, start: str, end: str) -> str:
    return b.node("Slice", x, start, end, integers(b, 1), channels=2)


def chunked(b: Builder, opset: int) -> str:
    """Halves of the channels, their limits computed from the shape, as PyTorch exports chunk."""
    x = b.conv("image", 4)
    count = b.node("Gather", b.node("Shape", x), integers(b, 1), axis=0)
    half = b.node("Div", b.node("Add", count, integers(b, 1)), integers(b, 2))
    parts = part_of(b, x, half, count), part_of(b, x, integers(b, 0), half)
    return HEADS["mean"](b, opset, b.relu(b.conv(b.node("Concat", *parts, axis=1, channels=4), 5)))


def resized_by_shape(b: Builder, opset: int) -> str:
    """To twice the size: batch and channels of the shape as they are, the rest cast, scaled and cast back."""
    x = b.conv("image", 4)
    shape = b.node("Shape", x)
    floats = b.node("Cast", shape, to=TensorProto.FLOAT)
    larger = b.node("Cast", b.node("Mul", floats, b.constant([1, 1, 2, 2])), to=TensorProto.INT64)
    parts = [b.node("Slice", one, integers(b, start), integers(b, end)) for one, start, end in ((shape, 0, 2), (larger, 2, 4))]
    sizes = b.node("Concat", *parts, axis=0)
    return HEADS["mean"](
        b, opset, b.relu(b.conv(b.node("Resize", x, b.constant([]), b.constant([]), sizes, mode="linear", channels=4), 5))
    )


def shape_of(b: Builder, x: str, channels: int) -> str:
    batch = b.node("Slice", b.node("Shape", x), integers(b, 0), integers(b, 1))
    return b.node("Concat", batch, integers(b, channels, HEIGHT, WIDTH), axis=0)


def with_coordinates(b: Builder, opset: int) -> str:
    """Rows and columns beside the image's channels."""
    rows, columns = b.constant(np.linspace(-1, 1, HEIGHT)[:, None]), b.constant(np.linspace(-1, 1, WIDTH)[None, None, None])
    expanded = [b.node("Expand", one, shape_of(b, "image", 1)) for one in (rows, columns)]
    return HEADS["mean"](b, opset, b.relu(b.conv(b.node("Concat", expanded[0], "image", expanded[1], axis=1, channels=5), 5)))


def with_positions(b: Builder, opset: int) -> str:
    """A number a cell, expanded to the map that it is added to."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    positions = b.node("Expand", b.weight(1, 4, HEIGHT, WIDTH), b.node("Shape", x))
    return HEADS["mean"](b, opset, b.relu(b.conv(b.node("Add", positions, x, channels=4), 5)))


def with_positions_as_far_as_needed(b: Builder, opset: int) -> str:
    """The same, expanded by sizes of which -1 stands for one as it is, replaced by 1, as PyTorch exports expand."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    batch = b.node("Slice", b.node("Shape", x), integers(b, 0), integers(b, 1))
    asked = b.node("Concat", batch, integers(b, -1, -1, WIDTH), axis=0)
    size = b.node("Where", b.node("Equal", asked, integers(b, -1)), integers(b, 1, 1, 1, 1), asked)
    positions = b.node("Expand", b.weight(1, 4, HEIGHT, 1), size)
    return HEADS["mean"](b, opset, b.relu(b.conv(b.node("Add", positions, x, channels=4), 5)))


def with_positions_of_an_image(b: Builder, opset: int) -> str:
    """The same without the batch, whose size is wholly known: a constant, made of one that lies in the file of weights."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    size = b.node("Slice", b.node("Shape", x), integers(b, 1), integers(b, 4))
    positions = b.node("Expand", b.weight(1, HEIGHT, 1, scale=2.0), size)
    more = b.node("Reshape", b.weight(4 * HEIGHT * WIDTH), size)
    return HEADS["mean"](b, opset, b.relu(b.conv(b.node("Add", b.node("Add", positions, x, channels=4), more), 5)))


def with_ones(b: Builder, opset: int) -> str:
    """Channels of ones beside those of a map, and zeros of its size where it is negative, as ones_like makes them."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    zeros = b.node("ConstantOfShape", b.node("Shape", x))
    x = b.node("Where", b.node("Less", x, zeros), zeros, x, channels=4)
    ones = b.node("ConstantOfShape", shape_of(b, x, 2), value=numpy_helper.from_array(np.ones(1, np.float32)))
    return HEADS["mean"](b, opset, b.relu(b.conv(b.node("Concat", x, ones, axis=1, channels=6), 5)))


def with_constant_channels(b: Builder, opset: int) -> str:
    """The same for one image: folded by the exporter to constants whose batch is 1."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    rows = b.constant(np.broadcast_to(np.linspace(-1, 1, HEIGHT)[:, None], (1, 1, HEIGHT, WIDTH)))
    x = b.node("Concat", rows, x, b.weight(1, 2, HEIGHT, WIDTH), axis=-3, channels=7)
    return HEADS["mean"](b, opset, b.relu(b.conv(x, 5)))


NETWORKS_BY_SHAPE = [
    chunked, resized_by_shape, with_coordinates, with_positions, with_positions_as_far_as_needed, with_positions_of_an_image,
    with_ones,
]  # fmt: skip


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("opset", [11, 13, OPSET])
@pytest.mark.parametrize("network", NETWORKS_BY_SHAPE)
def test_sizes_read_off_a_shape_are_known(network, opset, batch, tmp_path):
    nodes = assert_equals_source(save(tmp_path, network, opset, batch))
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


def test_constant_channels_beside_those_of_one_image(tmp_path):
    nodes = assert_equals_source(save(tmp_path, with_constant_channels, OPSET))
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


@pytest.mark.parametrize("alpha", [1.0, 1.3])
def test_swish_which_onnx_runtime_inlines(alpha, tmp_path):
    def network(b: Builder, opset: int) -> str:
        x = b.node("Swish", b.conv("image", 4), alpha=alpha)
        return HEADS["mean"](b, OPSET, b.relu(b.conv(x, 5)))

    nodes = assert_equals_source(save(tmp_path, network, 24))
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]
