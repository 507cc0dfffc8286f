"""Quantised values: 8-bit integers, each standing for (integer - zero point) * scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
INTEGERS = (np.dtype(np.uint8), np.dtype(np.int8))
"""Types of quantised values."""
WEIGHTS = {
    "Conv": 1,
    "QLinearConv": 3,
    "Gemm": 1,
    "MatMul": 1,
    "QGemm": 3,
    "QLinearMatMul": 3,
    "ConvInteger": 1,
    "MatMulInteger": 1,
}
"""Index of the weights among the inputs."""
OWN = ("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu",
       "QLinearGlobalAveragePool", "QGemm")  # fmt: skip
"""Operators of ONNX Runtime's own domain."""
PADDING = ("QLinearConv", "QLinearAveragePool")
"""Operators that pad with the zero point of their input."""
ON_INTEGERS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", *OWN, "MaxPool", "Concat", "Transpose", "Gather", "Slice",
               "Identity")  # fmt: skip
"""Operators whose regions may have an 8-bit integer type."""
SAME_BITS = (
    "QuantizeLinear", "DequantizeLinear", "Abs", "Add", "And", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
    "DepthToSpace", "Div", "Dropout", "Equal", "Floor", "Gather", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Less", "LessOrEqual", "Max", "MaxPool", "Mean", "Min", "Mul", "Neg", "Not", "Or", "Pad", "PRelu",
    "ReduceMax", "ReduceMin", "Relu", "Round", "Shrink", "Sign", "Slice", "SpaceToDepth", "Sub", "Sum", "ThresholdedRelu",
    "Transpose", "Where", "Xor",
)  # fmt: skip
"""Operators for which :func:`gives_same_bits` always holds."""


def domain_of(operator: str) -> str | None:
    """The domain of an integer operator; None is standard ONNX."""
    return MICROSOFT if operator in OWN else None


def numbers_of(value: gs.Tensor) -> np.ndarray:
    """The values of a constant, which may be stored in an external file."""
    return np.asarray(value.values)


def zero_point(value: gs.Tensor) -> int | None:
    """The zero point that readers pad ``value`` with, 0 if no reader pads it; None if readers disagree."""
    zero_points = set()
    for node in value.outputs:
        if node.op in PADDING and node.inputs[0] is value:
            constant = node.inputs[2]
            zero_points.add(int(numbers_of(constant)) if isinstance(constant, gs.Constant) else 0)
    return None if len(zero_points) > 1 else next(iter(zero_points), 0)


def quantised_behind(value: gs.Tensor) -> gs.Node | None:
    """A QuantizeLinear that depends on ``value`` through float32 values only; None if there is none."""
    worklist, seen = [value], {id(value)}
    while worklist:
        for node in worklist.pop().outputs:
            if node.op == "QuantizeLinear":
                return node
            for output in node.outputs:
                if id(output) not in seen and output.dtype == np.float32:
                    seen.add(id(output))
                    worklist.append(output)
    return None


def quantised_later(graph: gs.Graph) -> dict[str, str]:
    """:func:`quantised_behind` for all float32 values of a sorted graph: name of the QuantizeLinear by value name."""
    quantisers: dict[str, str] = {}
    for node in reversed(graph.nodes):
        behind = next((quantisers[value.name] for value in node.outputs if value.name in quantisers), None)
        if node.op == "QuantizeLinear":
            behind = node.name
        if behind is None:
            continue
        for value in node.inputs:
            if isinstance(value, gs.Variable) and value.dtype == np.float32:
                quantisers.setdefault(value.name, behind)
    return quantisers


def gives_same_bits(node: gs.Node) -> bool:
    """Whether a float32 operator is bit-identical in any layout: it neither sums several values nor approximates a function."""
    return node.op in SAME_BITS or (node.op == "Resize" and node.attrs.get("mode", "nearest") == "nearest")


def is_single(values: Sequence[gs.Tensor]) -> bool:
    """Whether all scales and zero points are constants of one element, that is per tensor."""
    return all(value.is_empty() or (isinstance(value, gs.Constant) and np.prod(value.shape) == 1) for value in values)
