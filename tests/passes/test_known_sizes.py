"""Sizes read off a map's shape are known but for the batch: models that compute with them are incremental, and exact."""

from __future__ import annotations

import numpy as np
import pytest
from networks import Builder
from onnx import TensorProto, numpy_helper
from source_file import HEIGHT, WIDTH, assert_equals_source, integers, mean_head, save

from kcompiler.passes.normalising.convert import OPSET


def part_of(b: Builder, x: str, start: str, end: str) -> str:
    return b.node("Slice", x, start, end, integers(b, 1), channels=2)


def chunked(b: Builder, opset: int) -> str:
    """Halves of the channels, their limits computed from the shape, as PyTorch exports chunk."""
    x = b.conv("image", 4)
    count = b.node("Gather", b.node("Shape", x), integers(b, 1), axis=0)
    half = b.node("Div", b.node("Add", count, integers(b, 1)), integers(b, 2))
    parts = part_of(b, x, half, count), part_of(b, x, integers(b, 0), half)
    return mean_head(b, opset, b.node("Concat", *parts, axis=1, channels=4))


def resized_by_shape(b: Builder, opset: int) -> str:
    """To twice the size: batch and channels of the shape as they are, the rest cast, scaled and cast back."""
    x = b.conv("image", 4)
    shape = b.node("Shape", x)
    floats = b.node("Cast", shape, to=TensorProto.FLOAT)
    larger = b.node("Cast", b.node("Mul", floats, b.constant([1, 1, 2, 2])), to=TensorProto.INT64)
    parts = [b.node("Slice", one, integers(b, start), integers(b, end)) for one, start, end in ((shape, 0, 2), (larger, 2, 4))]
    sizes = b.node("Concat", *parts, axis=0)
    no_regions = no_scales = b.constant([])
    resized = b.node("Resize", x, no_regions, no_scales, sizes, mode="linear", channels=4)
    return mean_head(b, opset, resized)


def shape_of(b: Builder, x: str, channels: int) -> str:
    batch = b.node("Slice", b.node("Shape", x), integers(b, 0), integers(b, 1))
    return b.node("Concat", batch, integers(b, channels, HEIGHT, WIDTH), axis=0)


def with_coordinates(b: Builder, opset: int) -> str:
    """Rows and columns beside the image's channels."""
    rows, columns = b.constant(np.linspace(-1, 1, HEIGHT)[:, None]), b.constant(np.linspace(-1, 1, WIDTH)[None, None, None])
    expanded = [b.node("Expand", one, shape_of(b, "image", 1)) for one in (rows, columns)]
    return mean_head(b, opset, b.node("Concat", expanded[0], "image", expanded[1], axis=1, channels=5))


def with_positions(b: Builder, opset: int) -> str:
    """A number a cell, expanded to the map that it is added to."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    positions = b.node("Expand", b.weight(1, 4, HEIGHT, WIDTH), b.node("Shape", x))
    return mean_head(b, opset, b.node("Add", positions, x, channels=4))


def with_positions_as_far_as_needed(b: Builder, opset: int) -> str:
    """The same, expanded by sizes of which -1 stands for one as it is, replaced by 1, as PyTorch exports expand."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    batch = b.node("Slice", b.node("Shape", x), integers(b, 0), integers(b, 1))
    asked = b.node("Concat", batch, integers(b, -1, -1, WIDTH), axis=0)
    size = b.node("Where", b.node("Equal", asked, integers(b, -1)), integers(b, 1, 1, 1, 1), asked)
    positions = b.node("Expand", b.weight(1, 4, HEIGHT, 1), size)
    return mean_head(b, opset, b.node("Add", positions, x, channels=4))


def with_positions_of_an_image(b: Builder, opset: int) -> str:
    """The same without the batch, whose size is wholly known: a constant, made of one that lies in the file of weights."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    size = b.node("Slice", b.node("Shape", x), integers(b, 1), integers(b, 4))
    positions = b.node("Expand", b.weight(1, HEIGHT, 1, scale=2.0), size)
    more = b.node("Reshape", b.weight(4 * HEIGHT * WIDTH), size)
    return mean_head(b, opset, b.node("Add", b.node("Add", positions, x, channels=4), more))


def with_ones(b: Builder, opset: int) -> str:
    """Channels of ones beside those of a map, and zeros of its size where it is negative, as ones_like makes them."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    zeros = b.node("ConstantOfShape", b.node("Shape", x))
    x = b.node("Where", b.node("Less", x, zeros), zeros, x, channels=4)
    ones = b.node("ConstantOfShape", shape_of(b, x, 2), value=numpy_helper.from_array(np.ones(1, np.float32)))
    return mean_head(b, opset, b.node("Concat", x, ones, axis=1, channels=6))


def with_constant_channels(b: Builder, opset: int) -> str:
    """The same for one image: folded by the exporter to constants whose batch is 1."""
    x = b.conv("image", 4, pads=[1, 1, 1, 1])
    rows = b.constant(np.broadcast_to(np.linspace(-1, 1, HEIGHT)[:, None], (1, 1, HEIGHT, WIDTH)))
    x = b.node("Concat", rows, x, b.weight(1, 2, HEIGHT, WIDTH), axis=-3, channels=7)
    return mean_head(b, opset, x)


NETWORKS_BY_SHAPE = [
    chunked, resized_by_shape, with_coordinates, with_positions, with_positions_as_far_as_needed, with_positions_of_an_image,
    with_ones,
]  # fmt: skip


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("opset", [11, 13, OPSET])
@pytest.mark.parametrize("network", NETWORKS_BY_SHAPE)
def test_sizes_read_off_a_shape_are_known(network, opset, batch, tmp_path):
    nodes = assert_equals_source(save(tmp_path, network, opset, batch)).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]


@pytest.mark.parametrize("limit", ["Min", "Max"])
def test_what_follows_from_the_batch_is_as_for_one_image(limit, tmp_path):
    """A map times the size of the batch, at most or at least 2."""

    def network(b: Builder, opset: int) -> str:
        x = b.conv("image", 4)
        batch = b.node("Slice", b.node("Shape", x), integers(b, 0), integers(b, 1))
        times = b.node("Cast", b.node(limit, batch, integers(b, 2)), to=TensorProto.FLOAT)
        return mean_head(b, opset, b.node("Mul", x, times))

    assert_equals_source(save(tmp_path, network, OPSET, "N"))


def test_constant_channels_beside_those_of_one_image(tmp_path):
    nodes = assert_equals_source(save(tmp_path, with_constant_channels, OPSET)).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]
