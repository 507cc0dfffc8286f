"""Explicit padding: replaces auto_pad by pads computed from shapes, and ceil_mode by the end pads that its last windows need."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.quantised import WEIGHTS
from kcompiler.passes.normalising.context import Context
from kcompiler.runtime.errors import ModelError

WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool", "QLinearConv", "QLinearAveragePool", "ConvInteger")


def make_explicit(graph: gs.Graph, context: Context) -> bool:
    """Replaces auto_pad and ceil_mode by pads. Returns whether shapes must be inferred anew.

    Raises:
        ModelError: ONNX shape inference and ONNX Runtime disagree on the output size of a pool.
    """
    changed = False
    for node in graph.nodes:
        if slides_over_known_cells(node):
            _auto_pad(node)
            changed |= _ceil_mode(node)
    return changed


def slides_over_known_cells(node: gs.Node) -> bool:
    """Whether the node is a sliding window over a map of known height and width, with as many axes as the map."""
    if node.op not in WINDOWED or not node.inputs or not node.inputs[0].shape:
        return False
    weights = node.inputs[WEIGHTS[node.op]].shape if node.op in WEIGHTS else None
    kernel = node.attrs.get("kernel_shape") or list(weights or ())[2:]
    if len(kernel) != len(node.inputs[0].shape) - 2:
        return False  # ONNX Runtime does not run it
    return all(isinstance(size, int) for size in node.inputs[0].shape[2:])


def _sizes(node: gs.Node) -> tuple[list[int], list[int], list[int], list[int]]:
    """For each axis: input cells, extent of the dilated kernel, stride, dilation."""
    kernel = list(node.attrs.get("kernel_shape") or node.inputs[WEIGHTS[node.op]].shape[2:])
    strides = list(node.attrs.get("strides") or [1] * len(kernel))
    dilations = list(node.attrs.get("dilations") or [1] * len(kernel))
    reaches = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    return list(node.inputs[0].shape[2:]), reaches, strides, dilations


def _auto_pad(node: gs.Node) -> None:
    """Replaces auto_pad by pads: SAME_UPPER, SAME_LOWER, VALID (ONNX specification of Conv and pools)."""
    mode = node.attrs.pop("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return
    inputs, reaches, strides, _ = _sizes(node)
    before, after = [0] * len(inputs), [0] * len(inputs)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for axis, (size, reach, stride) in enumerate(zip(inputs, reaches, strides, strict=True)):
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            small, large = total // 2, total - total // 2
            before[axis], after[axis] = (small, large) if mode == "SAME_UPPER" else (large, small)
    node.attrs["pads"] = before + after


def ceil_outputs(size: int, reach: int, stride: int, before: int, after: int) -> int:
    """Outputs along an axis in ceil_mode, without a last window that would start behind the input and its leading padding."""
    outputs = -(-(size + before + after - reach) // stride) + 1
    return outputs - 1 if (outputs - 1) * stride >= size + before else outputs


def _ceil_mode(node: gs.Node) -> bool:
    """Replaces ceil_mode by end pads. Older ONNX shape inference counts last windows that ONNX Runtime (correctly) drops.

    ceil_mode stays where an average counts its padding, since more pads would change the average.
    """
    if not node.attrs.get("ceil_mode", 0) or node.op == "QLinearAveragePool":
        return False
    inputs, reaches, strides, _ = _sizes(node)
    axes = len(inputs)
    pads = list(node.attrs.get("pads") or [0] * (2 * axes))
    outputs = [ceil_outputs(*axis) for axis in zip(inputs, reaches, strides, pads[:axes], pads[axes:], strict=True)]
    ends = [max((count - 1) * stride + reach - size - before, 0) for size, reach, stride, count, before in
            zip(inputs, reaches, strides, outputs, pads[:axes], strict=True)]  # fmt: skip
    too_wide = any(end >= kernel for end, kernel in zip(ends, node.attrs["kernel_shape"], strict=True))
    if node.attrs.get("count_include_pad", 0) or too_wide:  # ONNX Runtime rejects pads of the kernel's size
        inferred = list(node.outputs[0].shape[2:])
        if inferred != outputs:
            raise ModelError(
                f"node {node.name} ({node.op}): ceil_mode (with count_include_pad, or wide dilation) has {inferred} outputs "
                f"by ONNX shape inference but {outputs} in ONNX Runtime; export the model with opset 22 or explicit padding"
            )
        return False
    node.attrs["ceil_mode"] = 0
    node.attrs["pads"] = [*pads[:axes], *ends]
    return True
