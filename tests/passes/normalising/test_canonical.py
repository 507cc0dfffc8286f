"""What exporters write in several ways becomes one form, of which the rules know, and gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from networks import Builder, save
from onnx import helper
from source_file import assert_equals_source

from kcompiler.passes.normalising.normalise import normalise
from kcompiler.passes.source.load import load

SIZE, PATCH = (12, 16), (3, 4)


def write(network, folder, **options):
    """The network between two convolutions, of which the first has a bias for each channel."""
    builder = Builder()
    x = builder.conv("image", 8, pads=[1, 1, 1, 1])
    x = network(builder, x)
    onnx.save(builder.model(builder.conv(x, 5, pads=[1, 1, 1, 1]), *SIZE, **options), folder / "model.onnx")
    return folder / "model.onnx"


def operators(path, folder):
    """Of the normalised graph between the two convolutions."""
    source = load(path)
    names = [node.op for node in normalise(source, source.model.graph.output[0].name, folder).nodes]
    first, last = (step(index for index, name in enumerate(names) if name == "Conv") for step in (min, max))
    return names[first + 1 : last]


def why_dense(path, **options):
    """The reasons of the nodes that are not incremental, by operator; what is compiled gives the numbers of the source."""
    nodes = assert_equals_source(path, patch=PATCH, **options).report.nodes
    return {node.operator: node.reason for node in nodes if not node.incremental}


def ints(b: Builder, *numbers: int) -> str:
    return b.constant(list(numbers), np.int64)


def reshape(b: Builder, x: str, *sizes: int, channels: int = 8) -> str:
    return b.node("Reshape", x, ints(b, -1, *sizes), channels=channels)


def moved(b: Builder, x: str, split: list[int], order: list[int], joined: list[int]) -> str:
    """Reshape, Transpose, Reshape."""
    x = b.node("Transpose", reshape(b, x, *split), perm=order)
    return reshape(b, x, *joined, channels=joined[0])


def number(b: Builder, x: str, channel: int, axis: int = 1) -> str:
    """One channel, its axis gone."""
    return b.node("Gather", x, b.constant(channel, np.int64), axis=axis, channels=1)


def put_back(b: Builder, x: str) -> str:
    return b.node("Unsqueeze", x, ints(b, 1), channels=1)


def sliced(b: Builder, x: str) -> str:
    return b.node("Slice", x, ints(b, 2), ints(b, 3), ints(b, 1), channels=1)


def squeezed(b: Builder, x: str) -> str:
    return b.node("Squeeze", x, ints(b, 1), channels=1)


def scaled(b: Builder, x: str) -> str:
    return b.node("Add", b.node("Mul", x, b.constant(0.4)), b.constant([[-0.3]]))


Form = tuple[Callable[[Builder, str], str], list[str]]
FORMS: dict[str, Form] = {
    "a channel by its number": (lambda b, x: put_back(b, number(b, x, 2)), ["Gather"]),
    "a channel from behind": (lambda b, x: put_back(b, number(b, x, -3, axis=-3)), ["Gather"]),
    "a channel, scaled while its axis is gone": (lambda b, x: put_back(b, scaled(b, number(b, x, 2))), ["Gather", "Mul", "Add"]),
    "a slice, squeezed": (lambda b, x: put_back(b, b.relu(squeezed(b, sliced(b, x)))), ["Slice", "Relu"]),
    "squeezed and back": (lambda b, x: put_back(b, squeezed(b, b.conv(x, 1, 1))), ["Conv"]),
    "an axis more and gone": (lambda b, x: b.node("Squeeze", b.relu(b.node("Unsqueeze", x, ints(b, 2))), ints(b, 2)), ["Relu"]),
    "reshaped to what it is": (lambda b, x: reshape(b, b.relu(x), 8, *SIZE), ["Relu"]),
    "groups of channels": (lambda b, x: reshape(b, b.relu(reshape(b, x, 2, 4, *SIZE)), 8, *SIZE), ["Relu"]),
    "cells in a row": (
        lambda b, x: reshape(b, b.node("Clip", scaled(b, reshape(b, x, 8, 192)), "", b.constant(0.9)), 8, *SIZE),
        ["Mul", "Add", "Clip"],
    ),
    "all in a row": (lambda b, x: reshape(b, b.relu(b.node("Flatten", x)), 8, *SIZE), ["Relu"]),
    "rows and columns exchanged and back": (
        lambda b, x: b.node("Transpose", b.relu(b.node("Transpose", x, perm=[0, 1, 3, 2])), perm=[0, 1, 3, 2]),
        ["Relu"],
    ),
    "channels last and back": (
        lambda b, x: moved(b, moved(b, x, [8, 192], [0, 2, 1], [*SIZE, 8]), [192, 8], [0, 2, 1], [8, *SIZE]),
        [],
    ),
    "channels last by a list of cells": (
        lambda b, x: b.node(
            "Transpose", b.node("Softmax", moved(b, x, [8, 192], [0, 2, 1], [*SIZE, 8]), axis=-1), perm=[0, 3, 1, 2], channels=8
        ),
        ["Transpose", "Softmax", "Transpose"],
    ),
    "shuffled channels": (lambda b, x: moved(b, x, [2, 4, 192], [0, 2, 1, 3], [8, *SIZE]), ["Gather"]),
    "pixel unshuffle": (
        lambda b, x: moved(b, x, [8, 6, 2, 8, 2], [0, 1, 3, 5, 2, 4], [32, 6, 8]),
        ["SpaceToDepth", "Gather"],
    ),
    "space to depth": (lambda b, x: moved(b, x, [8, 6, 2, 8, 2], [0, 3, 5, 1, 2, 4], [32, 6, 8]), ["SpaceToDepth"]),
    "pixel shuffle": (lambda b, x: moved(b, x, [2, 2, 2, *SIZE], [0, 1, 4, 2, 5, 3], [2, 24, 32]), ["DepthToSpace"]),
    "depth to space": (lambda b, x: moved(b, x, [2, 2, 2, *SIZE], [0, 3, 4, 1, 5, 2], [2, 24, 32]), ["DepthToSpace"]),
    "depth to space, columns first": (
        lambda b, x: moved(b, x, [2, 2, 2, *SIZE], [0, 3, 4, 2, 5, 1], [2, 24, 32]),
        ["Gather", "DepthToSpace"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_layout_becomes_one_operator(form, tmp_path):
    network, expected = FORMS[form]
    path = write(network, tmp_path)
    assert operators(path, tmp_path) == expected
    assert why_dense(path).keys() == {"Flatten", "Gemm"}


def mirrored_rows(b: Builder, x: str) -> str:
    """Cells move in a way that no operator of a known form does."""
    return b.node("Transpose", x, perm=[0, 2, 1, 3], channels=SIZE[0])


def other_sides(b: Builder, x: str) -> str:
    return reshape(b, x, 8, 6, 32)


def read_twice(b: Builder, x: str) -> str:
    """What is computed in the middle is another's, too: it would be computed twice."""
    grouped = b.relu(reshape(b, x, 2, 4, *SIZE))
    both = b.node("ReduceMax", grouped, ints(b, 1), channels=4, keepdims=0)
    return b.node("Concat", reshape(b, grouped, 8, *SIZE), both, axis=1, channels=12)


def scaled_by_channel(b: Builder, x: str) -> str:
    return reshape(b, b.node("Mul", reshape(b, x, 8, 192), b.weight(8, 1, shift=1.0)), 8, *SIZE)


KEPT = {
    mirrored_rows: ["Transpose"],
    other_sides: ["Reshape"],
    read_twice: ["Reshape", "Relu", "Reshape", "ReduceMax", "Concat"],
    scaled_by_channel: ["Reshape", "Mul", "Reshape"],
}


@pytest.mark.parametrize("network", KEPT)
def test_other_layout_stays_and_runs_dense(network, tmp_path):
    path = write(network, tmp_path)
    assert sorted(operators(path, tmp_path)) == sorted(KEPT[network])
    assert len(why_dense(path)) > 2


def test_what_reads_the_middle_of_a_chain_keeps_it(tmp_path):
    """Only reshapes: the chain's end does without them, the other reader has its own."""

    def network(b, x):
        grouped = reshape(b, x, 2, 4, *SIZE)
        both = b.node("ReduceMax", grouped, ints(b, 1), channels=4, keepdims=0)
        return b.node("Concat", b.relu(reshape(b, grouped, 8, *SIZE)), both, axis=1, channels=12)

    path = write(network, tmp_path)
    assert sorted(operators(path, tmp_path)) == ["Concat", "ReduceMax", "Relu", "Reshape"]
    assert_equals_source(path, patch=PATCH)


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_layout_in_any_batch(batch, tmp_path):
    def network(b, x):
        return put_back(b, b.relu(number(b, x, 2)))

    assert operators(write(network, tmp_path, batch=batch), tmp_path) == ["Gather", "Relu"]


@pytest.mark.parametrize("read", [True, False])
def test_chain_that_ends_in_the_output(read, tmp_path):
    """Which keeps its name, whether or not another node reads it."""
    builder = Builder()
    x = builder.conv("image", 4, pads=[1, 1, 1, 1])
    x = builder.node("Transpose", builder.node("Transpose", x, perm=[0, 1, 3, 2]), perm=[0, 1, 3, 2])
    output = builder.node("Add", x, builder.relu(x)) if read else x
    image, *values = (helper.make_tensor_value_info(name, 1, [1, c, *SIZE]) for name, c in (("image", 3), (x, 4), (output, 4)))
    graph = helper.make_graph(builder.nodes, "g", [image], values[not read :], builder.weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    graph = normalise(load(path), x, tmp_path)
    assert [value.name for value in graph.outputs] == [x]
    assert not any(node.op == "Transpose" for node in graph.nodes)
    assert_equals_source(path, patch=PATCH, output=x)


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_image_converted_channel_by_channel_is_incremental(opset, tmp_path):
    """As torchvision's pretrained InceptionV3 and GoogLeNet do it."""
    path = save("converted_channels", tmp_path / "model.onnx", *SIZE, opset=opset)
    assert why_dense(path).keys() == {"Flatten", "Gemm"}


@pytest.mark.parametrize("opset", [9, 11])
def test_channel_whose_axis_is_put_back_by_an_attribute(opset, tmp_path):
    def network(b, x):
        return b.relu(b.node("Unsqueeze", number(b, x, 2), axes=[1], channels=1))

    path = write(network, tmp_path, opset=opset)
    assert operators(path, tmp_path) == ["Gather", "Relu"]
    assert why_dense(path).keys() == {"Flatten", "Gemm"}


def test_further_outputs_that_nobody_reads(tmp_path):
    def network(b, x):
        b.nodes.append(helper.make_node("MaxPool", [x], ["pooled", "places"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        last = b.node("Transpose", "pooled", perm=[0, 2, 3, 1])
        inputs = [last, b.weight(8, shift=1.0), b.weight(8)]
        b.nodes.append(helper.make_node("LayerNormalization", inputs, ["normalised", "mean", "deviation"], axis=-1))
        return b.node("Transpose", "normalised", perm=[0, 3, 1, 2], channels=8)

    path = write(network, tmp_path)
    assert operators(path, tmp_path) == ["MaxPool", "Transpose", "LayerNormalization", "Transpose"]
    assert why_dense(path).keys() == {"Flatten", "Gemm"}


def test_further_outputs_that_are_read_stay(tmp_path):
    def network(b, x):
        last = b.node("Transpose", x, perm=[0, 2, 3, 1])
        inputs = [last, b.weight(8, shift=1.0), b.weight(8)]
        b.nodes.append(helper.make_node("LayerNormalization", inputs, ["normalised", "mean"], axis=-1))
        centred = b.node("Sub", "normalised", "mean", channels=8)
        return b.node("Transpose", centred, perm=[0, 3, 1, 2])

    assert "LayerNormalization with more than one output" in why_dense(write(network, tmp_path))["LayerNormalization"]


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1, 1, 8), (1, 1, 1, 8), (1,), (1, 1, 1, 1)], ids=str)
def test_scale_of_a_layer_normalisation_may_have_the_axes_of_the_map(shape, tmp_path):
    def network(b, x):
        last = b.node("Transpose", x, perm=[0, 2, 3, 1])
        y = b.node("LayerNormalization", last, b.weight(*shape, shift=1.0), b.weight(*shape), axis=-1)
        return b.node("Transpose", y, perm=[0, 3, 1, 2])

    assert why_dense(write(network, tmp_path)).keys() == {"Flatten", "Gemm"}


@pytest.mark.parametrize(
    ("pads", "axes"),
    [
        ([0, 1, 0, 0, 0, -1, 0, 0], None),
        ([1, -1], [1]),
        ([0, -2, 1, 0, 0, 2, 0, 1], None),
        ([1, 0, 0, 0], [-3, 2]),
        ([0, 3, 2, 0, 0, 0, 1, 2], None),
    ],
)
def test_pads_that_move_channels_run_dense(pads, axes, tmp_path):
    channels = 8 + (sum(pads[1::4]) if axes is None else pads[0] + pads[len(axes)])

    def network(b, x):
        more = [] if axes is None else ["", ints(b, *axes)]
        return b.node("Pad", x, ints(b, *pads), *more, channels=channels)

    assert "Pad along the axes [1" in why_dense(write(network, tmp_path))["Pad"]


def test_pads_that_move_nothing_along_channels_are_incremental(tmp_path):
    def network(b, x):
        return b.node("Pad", x, ints(b, 1, 0, 2, 0), "", ints(b, 3, 1), channels=8)

    assert why_dense(write(network, tmp_path)).keys() == {"Flatten", "Gemm"}
