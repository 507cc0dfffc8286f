"""Models of old opsets, and what conversion and inlining leave behind: as incremental as new models, and exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from networks import Builder
from source_file import assert_equals_source, integers, mean, mean_head, save

from kcompiler.passes.normalising.convert import OPSET

OPSETS = [9, 10, 11, 13, 17]


def clip(b: Builder, opset: int, x: str) -> str:
    """As exporters write ReLU6, but with an upper end that is reached."""
    return b.node("Clip", x, min=0.0, max=0.6) if opset < 11 else b.node("Clip", x, b.constant(0.0), b.constant(0.6))


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
CASES = [*((feature, "flat") for feature in FEATURES), ("clip", "mean")]


@lru_cache
def decided(feature: str, head: str, opset: int) -> tuple[Counter[str], Counter[str]]:
    """How many nodes of each operator are incremental, and of each that is not the first word of the reason, which names none."""

    def network(b: Builder, written_in: int) -> str:
        x = FEATURES[feature](b, written_in, b.conv("image", 4, pads=[1, 1, 1, 1]))
        return mean_head(b, written_in, x) if head == "mean" else b.node("Flatten", b.relu(b.conv(x, 5)))

    with TemporaryDirectory() as folder:
        nodes = assert_equals_source(save(Path(folder), network, opset)).report.nodes
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
        return b.node("Flatten", b.conv(resize(b, opset, b.conv("image", 4), mode, *scales), 5, 2))

    nodes = assert_equals_source(save(tmp_path, network, 10)).report.nodes
    assert all(node.incremental for node in nodes if node.operator in ("Conv", "Resize"))


@pytest.mark.parametrize("opset", [10, OPSET])
def test_resize_whose_size_is_rounded_differently_runs_dense(opset, tmp_path):
    """10 cells times 2.3: 22 by shape inference, which takes 2.3 as the float32 below it, 23 in ONNX Runtime."""

    def network(b: Builder, written_in: int) -> str:
        x = resize(b, written_in, b.conv("image", 4), "linear", 2.3, 2.0)
        return mean_head(b, written_in, x)

    nodes = assert_equals_source(save(tmp_path, network, opset)).report.nodes
    assert [node.reason for node in nodes if node.operator == "Resize"] == [
        "Resize to [22, 24] cells by ONNX shape inference but [23, 24] in ONNX Runtime"
    ]


def test_pad_with_a_number_of_old_opsets(tmp_path):
    def network(b: Builder, opset: int) -> str:
        x = b.node("Pad", b.conv("image", 4), pads=[0, 0, 2, 1, 0, 0, 3, 2], value=1.5)
        return b.node("Flatten", b.conv(x, 5))

    assert_equals_source(save(tmp_path, network, 9))


@pytest.mark.parametrize("alpha", [1.0, 1.3])
def test_swish_which_onnx_runtime_inlines(alpha, tmp_path):
    def network(b: Builder, opset: int) -> str:
        x = b.node("Swish", b.conv("image", 4), alpha=alpha)
        return mean_head(b, OPSET, x)

    nodes = assert_equals_source(save(tmp_path, network, 24)).report.nodes
    assert [node.operator for node in nodes if not node.incremental] == ["ReduceMean"]
