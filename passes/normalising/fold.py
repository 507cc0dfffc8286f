"""Folding: what is known at compile time becomes a constant, although ONNX Runtime left it to be computed.

These are the constants that conversion to another opset and the inlining of functions bring, and numbers that follow from
sizes read off a value's shape, as far as they do not follow from the batch. What does is computed for several batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import SHAPE_ONLY, subgraphs
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import known_sizes
from kcompiler.passes.normalising.context import Context
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import BundleError
from kcompiler.runtime.foreign import ForeignFailure, foreign
from kcompiler.runtime.inference.sessions import Machine, open_session

BATCHES = (1, 2, 3, 5, 7, 64)
"""A number that is the same for batches of all these sizes does not depend on the batch; one that is these sizes is the batch."""
DRAWN = (1000, 100_000)
"""Between these, for sizes that are not known: nothing made of them is the same for all batches."""
KEPT = ("DequantizeLinear",)
"""ONNX Runtime does not fold these either: the weights that they make are smaller before. Here those of one axis are folded."""
SIZED = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
"""Operators whose output has the size that an input says, and the place of that input."""
GROWING = ("ConstantOfShape", "Expand", "Range", "Resize", "Tile")
"""Not computed for several batches: what they make may be large."""
RESTATED = "sizes"
Known = tuple[AnyArray, ...]
"""A value for each of BATCHES."""
Load = Callable[[gs.Constant], AnyArray]


def fold(graph: gs.Graph, context: Context) -> bool:
    """Makes constants of what is known, see :func:`fold_known`; a graph that has bodies (If, Loop) stays as it is."""
    return not any(subgraphs(graph)) and fold_known(graph, context.values)


def fold_known(graph: gs.Graph, load: Load) -> bool:
    """Makes constants of what nodes compute from constants and known sizes. Returns whether it found any.

    Then shapes must be inferred anew, after which there may be more.

    Args:
        graph: topologically sorted, its shapes inferred as far as may be.
        load: the numbers of a constant, which may lie in a file.

    What bodies read from around them may become constants, too; their own nodes stay.
    """
    known: dict[str, Known] = {}
    found = _fold_constants(graph, load, known)
    emit = Emitter(graph, reserved={name for one in subgraphs(graph) for name in one.tensors()})
    for node in list(graph.nodes):
        found |= _restate(emit, node, known)
    graph.cleanup().toposort()
    return found


def _fold_constants(graph: gs.Graph, load: Load, known: dict[str, Known]) -> bool:
    """What turns out the same for all batches becomes a constant, and other values that can be computed go into ``known``."""
    rng = np.random.default_rng(0)
    folded = False
    for node in list(graph.nodes):
        if node.domain not in (None, "", "ai.onnx") or _is_kept(node) or len(node.outputs) != 1:
            continue
        if node.op in SHAPE_ONLY:
            values = _read_shape(node, graph.inputs[0].shape[0], rng)
        else:
            values = _computed(node, known, load, graph.opset)
        output = node.outputs[0]
        if values is not None and all(np.array_equal(one, values[0]) for one in values[1:]):
            node.outputs.clear()
            output.to_constant(values[0])
            folded = True
        elif values is not None:
            known[output.name] = values
    return folded


def _is_kept(node: gs.Node) -> bool:
    return node.op in KEPT and (node.inputs[0].shape is None or len(node.inputs[0].shape) > 1)


def _computed(node: gs.Node, known: Mapping[str, Known], load: Load, opset: int) -> Known | None:
    """What ``node`` makes of its inputs, if they are known: for each batch where they differ, or once."""
    given: list[Known | None] = []
    for value in node.inputs:
        if value.name in known:
            given.append(known[value.name])
        elif isinstance(value, gs.Constant) and isinstance(value.dtype, np.dtype):
            given.append((load(value),))
        elif value.is_empty():
            given.append(None)
        else:
            return None
    runs = max((len(one) for one in given if one is not None), default=1)
    if runs > 1 and node.op in GROWING:
        return None
    return _run(node, [[one[min(run, len(one) - 1)] if one is not None else None for one in given] for run in range(runs)], opset)


def _read_shape(node: gs.Node, batch: int | str, rng: np.random.Generator) -> Known | None:
    """Of a Shape or Size: the sizes of its input. Those that are neither known nor the batch are drawn, for each batch anew."""
    shape = node.inputs[0].shape
    if shape is None:
        return None
    sizes = np.empty((len(BATCHES), len(shape)), np.int64)
    for axis, size in enumerate(shape):
        sizes[:, axis] = size if isinstance(size, int) else BATCHES if size == batch else rng.integers(*DRAWN, len(BATCHES))
    if node.op == "Size":
        return tuple(np.asarray(one.prod()) for one in sizes)
    return tuple(one[node.attrs.get("start", 0) : node.attrs.get("end")] for one in sizes)


def _run(node: gs.Node, runs: Sequence[Sequence[AnyArray | None]], opset: int) -> Known | None:
    """The output of ``node`` alone for the inputs of each run; None if ONNX Runtime cannot, and so it stays in the graph."""
    feeds = [{f"input_{place}": np.asarray(array) for place, array in enumerate(run) if array is not None} for run in runs]
    try:
        with foreign():
            session = open_session(_alone(node, len(runs[0]), feeds[0], opset), Machine(("cpu",), 1))
            results = [session.run(None, feed)[0] for feed in feeds]
    except (ForeignFailure, BundleError):
        return None
    return tuple(results) if all(isinstance(result, np.ndarray) for result in results) else None


def _alone(node: gs.Node, count: int, feeds: Mapping[str, AnyArray], opset: int) -> bytes:
    """A model of ``node``, with those of its ``count`` inputs that are given, of any size."""
    sizes = {name: [f"{name}_{axis}" for axis in range(array.ndim)] for name, array in feeds.items()}
    inputs = {name: gs.Variable(name, array.dtype, sizes[name]) for name, array in feeds.items()}
    given = [inputs.get(f"input_{place}", gs.Variable.empty()) for place in range(count)]
    output = gs.Variable("output")
    nodes = [gs.Node(node.op, "alone", dict(node.attrs), given, [output])]
    graph = gs.Graph(nodes, list(inputs.values()), [output], opset=opset)
    return bytes(gs.export_onnx(graph, do_type_check=False, ir_version=10).SerializeToString())


def _restate(emit: Emitter, node: gs.Node, known: Mapping[str, Known]) -> bool:
    """Where shape inference cannot tell an output's size: says it as the batch and numbers, put together, which it can."""
    place = SIZED.get(node.op)
    if place is None or node.inputs[place].name not in known or _is_known(node.outputs[0]):
        return False
    said, by_batch = node.inputs[place], known[node.inputs[place].name]
    if said.inputs[0].name.startswith(RESTATED) or len({one.shape for one in by_batch}) > 1 or by_batch[0].ndim != 1:
        return False
    batch = emit("Shape", emit.graph.inputs[0], start=0, end=1)
    parts = []
    for sizes in zip(*by_batch, strict=True):
        if sizes != BATCHES and len(set(sizes)) > 1:
            return False
        parts.append(batch if sizes == BATCHES else emit.int64([sizes[0]]))
    node.inputs[place] = emit("Concat", *parts, name=RESTATED, axis=0)
    return True


def _is_known(value: gs.Tensor) -> bool:
    """Whether all sizes but the batch are."""
    return value.shape == [] or known_sizes(value.shape) is not None
