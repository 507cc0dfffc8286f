"""Every operator that has a region rule, in a small network of its own: incremental, and exact at every position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from everywhere import assert_exact_everywhere
from networks import CHANNELS, Builder
from onnx import TensorProto
from random_networks import SAFE, SMOOTH, STEPPED
from source_file import NEVER_DENSE

from kcompiler.options import Options
from kcompiler.passes.regions.rules import RULES

SIZE = 12, 14
PATCH = 3, 4
OPSETS = {"Swish": 24}
"""Where not 20."""
Network = Callable[[Builder], str]
"""Makes a map of the image."""
NETWORKS: dict[str, Network] = {}


def network(*operators: str) -> Callable[[Callable[[Builder, str], str]], Callable[[Builder, str], str]]:
    def enter(make: Callable[[Builder, str], str]) -> Callable[[Builder, str], str]:
        for operator in operators:
            assert operator not in NETWORKS, operator
            NETWORKS[operator] = lambda b, operator=operator: make(b, operator)
        return make

    return enter


def conv(b: Builder, channels: int = 4) -> str:
    return b.conv("image", channels, pads=[1, 1, 1, 1])


def integers(b: Builder, *values: int) -> str:
    return b.constant(values, np.int64)


def positive(b: Builder, x: str) -> str:
    return b.node("Add", b.node("Abs", x), b.constant(0.3))


@network(*{*SMOOTH, "Gelu", "Swish", "Dropout"})
def smooth(b: Builder, op: str) -> str:
    x = conv(b)
    for before in SAFE.get(op, ()):
        x = b.node(before, x) if isinstance(before, str) else b.node("Add", x, b.constant(before))
    return b.node(op, x)


@network(*STEPPED)
def stepped(b: Builder, op: str) -> str:
    """Of the image, whose bits are the same however they are computed."""
    return b.node(op, "image")


@network("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
def comparison(b: Builder, op: str) -> str:
    compared = b.node(op, b.node("Round", "image"), b.weight(CHANNELS, 1, 1) if op != "Equal" else b.constant(1.0))
    return b.node("Where", compared, "image", b.constant(0.25))


@network("And", "Or", "Xor", "Not", "Where", "Cast")
def truth(b: Builder, op: str) -> str:
    one, other = b.node("Greater", "image", b.constant(0.1)), b.node("Less", "image", b.constant(0.9))
    if op in ("And", "Or", "Xor"):
        one = b.node(op, one, other)
    if op == "Not":
        one = b.node("Not", one)
    return b.node("Cast", one, to=TensorProto.FLOAT) if op == "Cast" else b.node("Where", one, "image", conv(b, CHANNELS))


@network("IsInf", "IsNaN")
def no_numbers(b: Builder, op: str) -> str:
    """What zero and negative numbers make of a reciprocal and a logarithm."""
    found = b.node(op, b.node("Reciprocal", b.relu("image")) if op == "IsInf" else b.node("Log", "image"))
    return b.node("Where", found, b.constant(0.5), "image")


@network("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")
def merged(b: Builder, op: str) -> str:
    operands = [conv(b), conv(b), b.weight(4, 1, 1)]
    if op in ("Add", "Sub", "Mul", "Div"):
        operands = [operands[0], positive(b, operands[1])]
    return b.node(op, *operands)


@network("Pow", "PRelu", "Clip", "BatchNormalization")
def parametric(b: Builder, op: str) -> str:
    x = conv(b)
    if op == "BatchNormalization":
        return b.batch_norm(x)
    if op == "Clip":
        return b.node(op, x, b.constant(-0.4), b.constant(0.6))
    return b.node(op, positive(b, x) if op == "Pow" else x, b.weight(4, 1, 1))


@network("Conv", "MaxPool", "AveragePool", "LpPool")
def windows(b: Builder, op: str) -> str:
    shape = {"pads": [1, 0, 1, 2], "strides": [2, 1]}
    if op == "Conv":
        return b.conv(conv(b), 6, (3, 2), 2, dilations=[2, 1], **shape)
    return b.node(op, conv(b), kernel_shape=[2, 3], **shape)


@network("Pad", "Slice", "Resize", "DepthToSpace", "SpaceToDepth")
def resampled(b: Builder, op: str) -> str:
    x = conv(b)
    if op == "Pad":
        return b.node(op, x, integers(b, 0, 0, 1, 2, 0, 0, 2, 1), mode="reflect")
    if op == "Slice":
        return b.node(op, x, integers(b, 1, -1), integers(b, 11, 2), integers(b, 2, 3), integers(b, 2, -1))
    if op == "Resize":
        return b.node(op, x, "", b.constant([1.0, 1.0, 2.0, 0.5]), mode="linear")
    return b.node(op, x, blocksize=2, channels=1 if op == "DepthToSpace" else 16)


@network("Concat", "Gather", "Transpose")
def channels(b: Builder, op: str) -> str:
    x = conv(b)
    if op == "Concat":
        return b.node(op, x, conv(b), axis=1, channels=8)
    if op == "Gather":
        return b.node(op, x, integers(b, 3, -3, 0), axis=1, channels=3)
    last = b.node("Softmax", b.node(op, x, perm=[0, 2, 3, 1]), axis=3)
    return b.node(op, last, perm=[0, 3, 1, 2], channels=4)


@network("Softmax", "LogSoftmax", "LpNormalization", "LRN", "Hardmax", *(op for op in RULES if op.startswith("Reduce")))
def across_channels(b: Builder, op: str) -> str:
    x = "image" if op == "Hardmax" else positive(b, conv(b))
    if op.startswith("Reduce"):
        return b.node("Concat", b.node(op, x, integers(b, 1)), x, axis=1, channels=5)
    return b.node(op, x, **({"size": 3} if op == "LRN" else {"axis": 1}))


@network("LayerNormalization", "MatMul")
def channels_last(b: Builder, op: str) -> str:
    last = b.node("Transpose", conv(b), perm=[0, 2, 3, 1])
    constants = [b.weight(4, 4)] if op == "MatMul" else [b.weight(4), b.weight(4)]
    y = b.node(op, last, *constants, **({} if op == "MatMul" else {"axis": -1}))
    return b.node("Transpose", y, perm=[0, 3, 1, 2], channels=4)


QUANTISED = {"QuantizeLinear", "DequantizeLinear", *(op for op in RULES if op.startswith("QLinear"))}
"""Operators whose networks are those of test_quantised.py."""


def test_every_rule_has_a_network():
    assert set(NETWORKS) == set(RULES) - QUANTISED


@pytest.mark.parametrize("operator", sorted(NETWORKS))
def test_operators_are_incremental_and_exact(operator, tmp_path):
    b = Builder()
    y = NETWORKS[operator](b)
    assert operator in {node.op_type for node in b.nodes}
    model = b.model(b.conv(y, 3, pads=[1, 1, 1, 1]), *SIZE, opset=OPSETS.get(operator, 20))
    onnx.save(model, tmp_path / "model.onnx")
    explainer = assert_exact_everywhere(tmp_path / "model.onnx", Options(patch=PATCH, dense_share=NEVER_DENSE, device="cuda"))
    dense = {node.operator for node in explainer.manifest.report.nodes if not node.incremental}
    assert dense <= {"Flatten", "Gemm"}
