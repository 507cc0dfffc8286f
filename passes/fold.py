"""Folding: what is known at compile time becomes a constant, although ONNX Runtime left it to be computed.

These are the constants that conversion to another opset and the inlining of functions bring, and sizes that are read off a
value's shape: of these all but the batch are known, number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from kcompiler.passes.batch import SHAPE_ONLY, subgraphs
from kcompiler.passes.emit import Array
from kcompiler.runtime.sessions import Machine, open_session

KEPT = ("DequantizeLinear",)
"""ONNX Runtime does not fold these either: the weights that they make are smaller before."""
MOVES = ("Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that carry numbers of their first input (a Concat of all) to other places, by parameters behind it."""
CELL_BY_CELL = ("Abs", "Add", "Ceil", "Div", "Equal", "Floor", "Max", "Min", "Mul", "Neg", "Round", "Sub", "Where")


@dataclass(frozen=True, slots=True)
class Known:
    """A value of the graph.

    Attributes:
        values: its numbers, any where they are not known.
        unknown: which follow from the batch; of the same shape.
    """

    values: Array
    unknown: npt.NDArray[np.bool_]

    @staticmethod
    def surely(values: Array) -> Known:
        return Known(values, np.zeros(values.shape, np.bool_))


def fold(graph: gs.Graph, load: Callable[[gs.Constant], Array]) -> bool:
    """Makes constants of what nodes compute from constants and known sizes. Returns whether it found any.

    Args:
        graph: topologically sorted, its shapes inferred as far as may be. One with bodies (If, Loop) stays as it is.
        load: the numbers of a constant, which may lie in a file.
    """
    if any(subgraphs(graph)):
        return False
    known: dict[str, Known] = {}
    folded = False
    for node in list(graph.nodes):
        if node.domain not in (None, "", "ai.onnx") or node.op in KEPT or len(node.outputs) != 1:
            continue
        output, found = node.outputs[0], _found(node, known, load, graph.opset)
        if found is not None and found.unknown.any():
            known[output.name] = found
        elif found is not None:
            node.outputs.clear()
            output.to_constant(found.values)
            folded = True
    graph.cleanup()
    return folded


def _found(node: gs.Node, known: Mapping[str, Known], load: Callable[[gs.Constant], Array], opset: int) -> Known | None:
    """What ``node`` makes, if its inputs say."""
    if node.op in SHAPE_ONLY:
        return _read_shape(node)
    given: list[Known | None] = []
    for value in node.inputs:
        if value.name in known:
            given.append(known[value.name])
        elif isinstance(value, gs.Constant) and isinstance(value.dtype, np.dtype):
            given.append(Known.surely(load(value)))
        elif value.is_empty():
            given.append(None)
        else:
            return None
    if any(one is not None and one.unknown.any() for one in given):
        return _partly(node, given, opset)
    values = _run(node, [one.values if one is not None else None for one in given], opset)
    return None if values is None else Known.surely(values)


def _read_shape(node: gs.Node) -> Known | None:
    """Of a Shape or Size: the sizes of its input."""
    shape = node.inputs[0].shape
    if shape is None:
        return None
    sizes = np.array([size if isinstance(size, int) else 1 for size in shape], np.int64)
    unknown = np.array([not isinstance(size, int) for size in shape], np.bool_)
    if node.op == "Size":
        return Known(np.asarray(sizes.prod()), np.asarray(unknown.any()))
    part = slice(node.attrs.get("start", 0), node.attrs.get("end"))
    return Known(sizes[part], unknown[part])


def _partly(node: gs.Node, given: Sequence[Known | None], opset: int) -> Known | None:
    """Of numbers some of which are unknown: which of the results are, found out by running the operator on the marks."""
    present = [one for one in given if one is not None]
    values = _run(node, [one.values if one is not None else None for one in given], opset)
    if values is None:
        return None
    if node.op in CELL_BY_CELL:
        marks = np.logical_or.reduce(np.broadcast_arrays(*(one.unknown for one in present)))
        return Known(values, np.broadcast_to(marks, values.shape))
    carried = len(given) if node.op == "Concat" else 1
    if node.op not in MOVES or any(one.unknown.any() for one in present[carried:]):
        return None
    moved = [one.unknown.astype(one.values.dtype) for one in present[:carried]]
    marks = _run(node, [*moved, *(one.values if one is not None else None for one in given[carried:])], opset)
    return None if marks is None else Known(values, marks.astype(np.bool_))


def _run(node: gs.Node, arrays: Sequence[Array | None], opset: int) -> Array | None:
    """The output of ``node`` alone on these inputs; None if ONNX Runtime cannot run it, and so it stays in the graph."""
    feeds = {f"input_{number}": np.asarray(array) for number, array in enumerate(arrays) if array is not None}
    try:
        (result,) = open_session(_alone(node, len(arrays), feeds, opset), Machine(("cpu",), 1)).run(None, feeds)
    except Exception:  # ONNX Runtime raises a class per status code, with Exception as their only common base
        return None
    return result if isinstance(result, np.ndarray) else None


def _alone(node: gs.Node, count: int, feeds: Mapping[str, Array], opset: int) -> bytes:
    """A model of ``node``, with those of its ``count`` inputs that are given."""
    inputs = {name: gs.Variable(name, array.dtype, array.shape) for name, array in feeds.items()}
    given = [inputs.get(f"input_{number}", gs.Variable.empty()) for number in range(count)]
    output = gs.Variable("output")
    nodes = [gs.Node(node.op, "alone", dict(node.attrs), given, [output])]
    graph = gs.Graph(nodes, list(inputs.values()), [output], opset=opset)
    return bytes(gs.export_onnx(graph, do_type_check=False, ir_version=10).SerializeToString())
