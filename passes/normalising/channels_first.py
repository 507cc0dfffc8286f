"""NCHW again: integer operators that ONNX Runtime's layout optimisation wrote for channels last, between Transposes."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from kcompiler.passes.graphs.quantised import MICROSOFT
from kcompiler.passes.normalising.unfuse import Attributes, Parts, TakeApart

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def between_transposes(parts: Parts, node: onnx.NodeProto, operator: str, attributes: Attributes) -> None:
    """``operator`` in NCHW, between Transposes of its first input and its output."""
    first = parts("Transpose", node.input[0], perm=TO_FIRST)
    parts("Transpose", parts(operator, first, *node.input[1:], **attributes), perm=TO_LAST)


def qlinear(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """QLinear operators with channels_last. The convolution becomes the standard operator. Nodes in NCHW stay."""
    if not attributes.pop("channels_last", 0):
        return False
    domain = {} if node.op_type == "QLinearConv" else {"domain": MICROSOFT}
    between_transposes(parts, node, node.op_type, {**attributes, **domain})
    return True


def max_pool(parts: Parts, node: onnx.NodeProto, attributes: Attributes) -> bool:
    between_transposes(parts, node, "MaxPool", attributes)
    return True


CHANNELS_LAST: Mapping[str, TakeApart] = {
    "NhwcMaxPool": max_pool,
    "QLinearAveragePool": qlinear,
    "QLinearConv": qlinear,
    "QLinearGlobalAveragePool": qlinear,
}
"""Rewrites by operator of com.microsoft."""
