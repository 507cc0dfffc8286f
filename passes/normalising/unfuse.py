"""Decomposition of fused operators, which ONNX Runtime writes into models that it optimises, into standard operators.

Requires a model as loaded. Ensures: the same outputs except for rounding. An operator without an entry in the table, or whose
attributes standard operators cannot express, stays, and nodes behind it run dense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kcompiler.passes.graphs.names import fresh_name
from kcompiler.passes.graphs.quantised import MICROSOFT
from kcompiler.runtime.arrays import AnyArray

OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
LAYER_NORMALIZATION = 17
"""The first opset with LayerNormalization."""
GELU = 20
"""The first opset with Gelu."""
CLIP_BY_INPUTS = 11
"""The first opset in which the limits of Clip are inputs, not attributes."""


class Parts:
    """The nodes that replace a fused node, under construction.

    Attributes:
        nodes: so far; the output of the last node replaces that of the fused node.
        opset: of the standard domain.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path, opset: int) -> None:
        """For ``model``, whose external weights are in ``folder``."""
        self._model, self._folder, self.opset = model, folder, opset
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._names = {*self._weights, *(name for node in model.graph.node for name in node.output)}
        self.nodes: list[onnx.NodeProto] = []

    def start(self, node: onnx.NodeProto) -> None:
        """Begins the replacement of ``node``."""
        self.nodes, self._stem = [], node.name or next(iter(node.output), node.op_type)

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node of a standard operator; returns the name of its output."""
        output = fresh_name(f"{self._stem}/{operator}", self._names)
        self.nodes.append(helper.make_node(operator, list(inputs), [output], output, **attributes))
        return output

    def constant(self, values: AnyArray, name: str = "constant") -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), fresh_name(f"{self._stem}/{name}", self._names))
        self._model.graph.initializer.append(tensor)
        return str(tensor.name)

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def weights(self, name: str) -> AnyArray | None:
        """The values of the initializer ``name``; None if it is no initializer."""
        if name not in self._weights:
            return None
        return numpy_helper.to_array(self._weights[name], str(self._folder))


Attributes = dict[str, Any]
TakeApart = Callable[[Parts, onnx.NodeProto, Attributes], bool]
"""Appends the parts of a node with the given attributes, the result last; returns False, and appends nothing, where it stays."""


def unfuse(model: onnx.ModelProto, folder: Path, table: Mapping[str, TakeApart], domain: str = MICROSOFT) -> bool:
    """Decomposes, in place, the nodes of ``domain`` whose operators are in ``table``. Returns whether there was any.

    Args:
        model: unchanged if it has half or double precision weights, since the constants of parts are float32.
        folder: of its external weights.
        table: decompositions by operator.
        domain: of the fused operators.
    """
    if any(tensor.data_type in OTHER_FLOATS for tensor in model.graph.initializer):
        return False
    opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    parts, nodes, changed = Parts(model, folder, opset), [], False
    for node in model.graph.node:
        parts.start(node)
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.domain == domain and node.op_type in table and table[node.op_type](parts, node, attributes):
            parts.nodes[-1].output[0] = node.output[0]
            nodes += parts.nodes
            changed = True
        else:
            nodes.append(node)
    if changed:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return changed


def activated(parts: Parts, value: str, name: str, numbers: list[float]) -> str:
    """``value`` after the activation called ``name`` with parameters ``numbers``; unchanged if ``name`` is empty."""
    if name == "Clip":
        if parts.opset < CLIP_BY_INPUTS:
            return parts("Clip", value, min=numbers[0], max=numbers[1])
        return parts("Clip", value, *(parts.number(limit) for limit in numbers))
    if name == "HardSwish":
        return parts("Mul", value, parts("HardSigmoid", value, alpha=1 / 6, beta=0.5))
    attributes = dict(zip(PARAMETERS.get(name, ()), numbers, strict=False))
    return parts(name, value, **attributes) if name else value


PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",), "ThresholdedRelu": ("alpha",)}
"""Attribute names of the parameters of activations, in order."""


def convolved(parts: Parts, inputs: list[str], attributes: Attributes) -> None:
    """A convolution of (image, weights[, bias[, summand]]): Conv, Add of the summand, activation."""
    name, numbers = attributes.pop("activation", b"").decode(), attributes.pop("activation_params", [])
    image, weights, bias, summand = [*inputs, "", ""][:4]
    value = parts("Conv", image, weights, *([bias] if bias else []), **attributes)
    if summand:
        value = parts("Add", value, summand)
    activated(parts, value, name, list(numbers))


def fused_conv(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    convolved(parts, list(node.input), attributes)
    return True


def fused_gemm(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    name = attributes.pop("activation", b"").decode()
    numbers = [attributes.pop(f"activation_{place}", None) for place in ("alpha", "beta", "gamma")]
    activated(parts, parts("Gemm", *node.input, **attributes), name, [number for number in numbers if number is not None])
    return True


def fused_matmul(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """FusedMatMul without transposed operands: the permutations would depend on ranks, which are not known here."""
    if any(attributes.get(name, 0) for name in ("transA", "transB", "transBatchA", "transBatchB")):
        return False
    product = parts("MatMul", *node.input)
    if (factor := attributes.get("alpha", 1.0)) != 1.0:
        parts("Mul", product, parts.number(factor))
    return True


def quick_gelu(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    (value,) = node.input
    factor = attributes.get("alpha", 1.702)
    scaled = value if factor == 1.0 else parts("Mul", value, parts.number(factor))
    parts("Mul", value, parts("Sigmoid", scaled))
    return True


def _gelu(parts: Parts, value: str) -> None:
    if parts.opset >= GELU:
        parts("Gelu", value)
        return
    erf = parts("Erf", parts("Div", value, parts.number(sqrt(2))))
    parts("Mul", parts("Mul", value, parts("Add", erf, parts.number(1.0))), parts.number(0.5))


def gelu(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    _gelu(parts, node.input[0])
    return True


def bias_gelu(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    _gelu(parts, parts("Add", *node.input))
    return True


def fast_gelu(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """The tanh approximation of Gelu, of the sum with the bias if there is one."""
    value = parts("Add", *node.input) if len(node.input) > 1 and node.input[1] else node.input[0]
    if parts.opset >= GELU:
        parts("Gelu", value, approximate="tanh")
        return True
    cube = parts("Mul", parts("Mul", value, value), value)
    inside = parts("Add", value, parts("Mul", cube, parts.number(0.044715)))
    tanh = parts("Tanh", parts("Mul", inside, parts.number(sqrt(2 / pi))))
    parts("Mul", parts("Mul", value, parts("Add", tanh, parts.number(1.0))), parts.number(0.5))
    return True


def skip_layer_normalization(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """LayerNormalization of the sum of both inputs, and of the bias if there is one. It stays if further outputs are used."""
    if parts.opset < LAYER_NORMALIZATION or any(node.output[1:]):
        return False
    value, skip, scale, shift, bias = [*node.input, "", ""][:5]
    total = parts("Add", value, skip)
    total = parts("Add", total, bias) if bias else total
    shifts = [shift] if shift else []
    parts("LayerNormalization", total, scale, *shifts, axis=-1, epsilon=attributes.get("epsilon", 1e-12))
    return True


FUSED: Mapping[str, TakeApart] = {
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "QuickGelu": quick_gelu,
    "Gelu": gelu,
    "BiasGelu": bias_gelu,
    "FastGelu": fast_gelu,
    "SkipLayerNormalization": skip_layer_normalization,
}
"""Decompositions by operator of com.microsoft."""
