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
"""Place of the weights among the inputs."""
OWN = ("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu",
       "QLinearGlobalAveragePool", "QGemm")  # fmt: skip
"""Operators of ONNX Runtime's own domain."""
PADDING = ("QLinearConv", "QLinearAveragePool")
"""Operators that pad with the zero point of what they read."""
ON_INTEGERS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", *OWN, "MaxPool", "Concat", "Transpose", "Gather", "Slice",
               "Identity")  # fmt: skip
"""Operators whose regions may be of integers."""
SAME_BITS = (
    "QuantizeLinear", "DequantizeLinear", "Abs", "Add", "And", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
    "DepthToSpace", "Div", "Dropout", "Equal", "Floor", "Gather", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Less", "LessOrEqual", "Max", "MaxPool", "Mean", "Min", "Mul", "Neg", "Not", "Or", "Pad", "PRelu",
    "ReduceMax", "ReduceMin", "Relu", "Round", "Shrink", "Sign", "Slice", "SpaceToDepth", "Sub", "Sum", "ThresholdedRelu",
    "Transpose", "Where", "Xor",
)  # fmt: skip
"""Of which :func:`gives_same_bits` always holds."""


def domain_of(operator: str) -> str | None:
    """That of an integer operator; None is the standard."""
    return MICROSOFT if operator in OWN else None


def numbers_of(value: gs.Tensor) -> np.ndarray:
    """Of a constant, which may lie in a file."""
    return np.asarray(value.values)


def zero_point(value: gs.Tensor) -> int | None:
    """The integer for zero in ``value`` by the operators that pad it, 0 where none does; None if they disagree."""
    found = set()
    for node in value.outputs:
        if node.op in PADDING and node.inputs[0] is value:
            given = node.inputs[2]
            found.add(int(numbers_of(given)) if isinstance(given, gs.Constant) else 0)
    return None if len(found) > 1 else next(iter(found), 0)


def quantised_behind(value: gs.Tensor) -> gs.Node | None:
    """A QuantizeLinear that what is made of ``value``, in float32 all the way, comes to; None if there is none."""
    waiting, seen = [value], {id(value)}
    while waiting:
        for node in waiting.pop().outputs:
            if node.op == "QuantizeLinear":
                return node
            for output in node.outputs:
                if id(output) not in seen and output.dtype == np.float32:
                    seen.add(id(output))
                    waiting.append(output)
    return None


def quantised_later(graph: gs.Graph) -> dict[str, str]:
    """The float32 values of a sorted graph that have a :func:`quantised_behind`: its name, by theirs."""
    found: dict[str, str] = {}
    for node in reversed(graph.nodes):
        behind = next((found[value.name] for value in node.outputs if value.name in found), None)
        if node.op == "QuantizeLinear":
            behind = node.name
        if behind is None:
            continue
        for value in node.inputs:
            if isinstance(value, gs.Variable) and value.dtype == np.float32:
                found.setdefault(value.name, behind)
    return found


def gives_same_bits(node: gs.Node) -> bool:
    """Whether an operator on float32 does, however cells lie: it neither sums over several nor approximates."""
    return node.op in SAME_BITS or (node.op == "Resize" and node.attrs.get("mode", "nearest") == "nearest")


def is_single(values: Sequence[gs.Tensor]) -> bool:
    """Whether scales and zero points are constant, and one for all channels."""
    return all(value.is_empty() or (isinstance(value, gs.Constant) and np.prod(value.shape) == 1) for value in values)
