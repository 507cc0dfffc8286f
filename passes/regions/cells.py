"""Elementwise operators: activations, arithmetic, comparisons, and merges of branches of equal size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.regions.geometry import Spans
from kcompiler.passes.regions.region import NoRule, Region, map_of, only

POINTWISE = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
    "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
MERGES = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul", "Or", "PRelu",
    "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip

NOWHERE = Spans(np.zeros(0, np.int64), np.zeros(0, np.int64), 1, np.zeros(0))
GATE = Region(0, NOWHERE, NOWHERE)
"""Placeholder for an input of a merge that is a frozen gate: a value per channel of the uncovered image, used as a constant."""


def pointwise(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The region of the first input, unchanged. All other inputs must be constants."""
    region = only(node, regions)
    constants = node.inputs[1:]
    if node.op == "BatchNormalization" and node.attrs.get("training_mode", 0):
        raise NoRule("BatchNormalization in training mode")
    if node.op == "BatchNormalization" and region.last:
        raise NoRule("BatchNormalization of a map whose channels are last")
    if node.op == "Dropout" and len(constants) > 1 and bool(np.any(constants[1].values)):
        raise NoRule("Dropout in training mode")
    if node.op == "Cast" and node.attrs["to"] not in (TensorProto.FLOAT, TensorProto.BOOL):
        raise NoRule(f"Cast to {TensorProto.DataType.Name(node.attrs['to'])}, regions are float32")
    return region


def merge(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The union box of the inputs: maps of equal size, and constants that broadcast to it.

    A map of one channel is broadcast over the channels of another.
    """
    present = [region for region in regions if region is not None and region is not GATE]
    last = present[0].last
    channels, *size = map_of(node, node.outputs[0], last=last)
    union: Region | None = None
    for value, region in zip(node.inputs, regions, strict=True):
        if region is GATE:
            continue
        if region is None:
            check_constant(node, value, (channels, *size), last=last)
        elif region.last != last:
            raise NoRule(f"{node.op} of maps with channels first and channels last")
        elif region.channels not in (1, channels) or [*region.map] != size:
            raise NoRule(f"{node.op} broadcasts the map {value.name}")
        else:
            union = region if union is None else union.union(region)
    assert union is not None, "some input depends on the image"
    return replace(union, channels=channels)


def check_constant(node: gs.Node, value: gs.Tensor, map_size: tuple[int, ...], *, last: bool) -> None:
    """Checks that an operand of a merge is a constant that broadcasts to the output, and is the same for all images.

    Raises:
        NoRule: it is not constant, or does not broadcast.
    """
    if not isinstance(value, gs.Constant):
        raise NoRule(f"{node.op} with the computed operand {value.name}")
    channels, height, width = map_size
    full = (1, height, width, channels) if last else (1, channels, height, width)
    shape = tuple(value.shape)
    aligned = (1,) * (4 - len(shape)) + shape
    if len(shape) > 4 or any(size not in (1, whole) for size, whole in zip(aligned, full, strict=True)):
        raise NoRule(f"{node.op} with a constant of shape {shape}, which is larger than its output")
