"""Constant folding beyond ONNX Runtime's.

It folds constants left by opset conversion and function inlining, and values computed from shapes that do not depend on the batch
size. To tell, such values are computed for several batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import SHAPE_ONLY, subgraphs
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import known_sizes
from kcompiler.passes.isolation import process
from kcompiler.passes.isolation.process import Limits
from kcompiler.passes.normalising.context import Context
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.foreign import ForeignFailure

BATCHES = (1, 2, 3, 5, 7, 64)
"""A value that is equal for all these batch sizes does not depend on the batch; a size that equals each of them is the batch."""
DRAWN = (1000, 100_000)
"""Range from which unknown sizes are drawn at random, so that nothing computed from them is equal for all batch sizes."""
KEPT = ("DequantizeLinear",)
"""ONNX Runtime does not fold these either, since quantised weights are smaller. Here only those of one axis are folded."""
SIZED = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
"""Operators with an input that determines the output's shape, and the index of that input."""
GROWING = ("ConstantOfShape", "Expand", "Range", "Resize", "Tile")
"""Operators not computed for several batch sizes, as their outputs may be large."""
RESTATED = "sizes"
ALONE = Limits.of(0)
"""Of a node alone."""
Known = tuple[AnyArray, ...]
"""A value for each of BATCHES, or a single one that is equal for all."""
Load = Callable[[gs.Constant], AnyArray]


def fold(graph: gs.Graph, context: Context) -> bool:
    """Folds constants, see :func:`fold_known`; a graph with bodies (If, Loop) is unchanged."""
    return not any(subgraphs(graph)) and fold_known(graph, context.values)


def fold_known(graph: gs.Graph, load: Load) -> bool:
    """Folds nodes whose inputs are constants and known sizes. Returns whether it folded any.

    Then shapes must be inferred anew, after which more may fold.

    Args:
        graph: topologically sorted, its shapes inferred as far as possible.
        load: returns the values of a constant, which may be stored in an external file.

    Outer values that bodies read may become constants, too; nodes inside bodies are not folded.
    """
    known: dict[str, Known] = {}
    changed = _fold_constants(graph, load, known)
    emit = Emitter(graph, reserved={name for body in subgraphs(graph) for name in body.tensors()})
    for node in list(graph.nodes):
        changed |= _restate(emit, node, known)
    graph.cleanup().toposort()
    return changed


def _fold_constants(graph: gs.Graph, load: Load, known: dict[str, Known]) -> bool:
    """Folds values that are equal for all batch sizes; other values that can be computed are added to ``known``."""
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
        if values is not None and all(np.array_equal(value, values[0]) for value in values[1:]):
            node.outputs.clear()
            output.to_constant(values[0])
            folded = True
        elif values is not None:
            known[output.name] = values
    return folded


def _is_kept(node: gs.Node) -> bool:
    return node.op in KEPT and (node.inputs[0].shape is None or len(node.inputs[0].shape) > 1)


def _computed(node: gs.Node, known: Mapping[str, Known], load: Load, opset: int) -> Known | None:
    """The output of ``node`` if its inputs are known: for each batch size if they depend on it, else once."""
    inputs: list[Known | None] = []
    for value in node.inputs:
        if value.name in known:
            inputs.append(known[value.name])
        elif isinstance(value, gs.Constant) and isinstance(value.dtype, np.dtype):
            inputs.append((load(value),))
        elif value.is_empty():
            inputs.append(None)
        else:
            return None
    runs = max((len(by_batch) for by_batch in inputs if by_batch is not None), default=1)
    if runs > 1 and node.op in GROWING:
        return None
    return _run(node, [[v[min(run, len(v) - 1)] if v is not None else None for v in inputs] for run in range(runs)], opset)


def _read_shape(node: gs.Node, batch: int | str, rng: np.random.Generator) -> Known | None:
    """The output of a Shape or Size for each batch size. Sizes that are neither known nor the batch are drawn at random."""
    shape = node.inputs[0].shape
    if shape is None:
        return None
    sizes = np.empty((len(BATCHES), len(shape)), np.int64)
    for axis, size in enumerate(shape):
        sizes[:, axis] = size if isinstance(size, int) else BATCHES if size == batch else rng.integers(*DRAWN, len(BATCHES))
    if node.op == "Size":
        return tuple(np.asarray(shape.prod()) for shape in sizes)
    return tuple(shape[node.attrs.get("start", 0) : node.attrs.get("end")] for shape in sizes)


def _run(node: gs.Node, runs: Sequence[Sequence[AnyArray | None]], opset: int) -> Known | None:
    """The output of ``node`` alone for the inputs of each run; None if ONNX Runtime cannot run it, and the node stays."""
    feeds = [{f"input_{place}": np.asarray(array) for place, array in enumerate(run) if array is not None} for run in runs]
    try:
        results = [outputs[0] for outputs in process.run(_alone(node, len(runs[0]), feeds[0], opset), feeds, ALONE)]
    except ForeignFailure:
        return None
    known = [result for result in results if result is not None]
    return tuple(known) if len(known) == len(results) else None


def _alone(node: gs.Node, count: int, feeds: Mapping[str, AnyArray], opset: int) -> bytes:
    """A serialised model of ``node`` alone, with those of its ``count`` inputs that ``feeds`` has, of any size."""
    sizes = {name: [f"{name}_{axis}" for axis in range(array.ndim)] for name, array in feeds.items()}
    inputs = {name: gs.Variable(name, array.dtype, sizes[name]) for name, array in feeds.items()}
    ordered = [inputs.get(f"input_{place}", gs.Variable.empty()) for place in range(count)]
    output = gs.Variable("output")
    nodes = [gs.Node(node.op, "alone", dict(node.attrs), ordered, [output])]
    graph = gs.Graph(nodes, list(inputs.values()), [output], opset=opset)
    return bytes(gs.export_onnx(graph, do_type_check=False, ir_version=10).SerializeToString())


def _restate(emit: Emitter, node: gs.Node, known: Mapping[str, Known]) -> bool:
    """Replaces a shape input that shape inference cannot evaluate by a Concat of the batch size and constants, which it can."""
    place = SIZED.get(node.op)
    if place is None or node.inputs[place].name not in known or _is_known(node.outputs[0]):
        return False
    shape, by_batch = node.inputs[place], known[node.inputs[place].name]
    if shape.inputs[0].name.startswith(RESTATED) or len({sizes.shape for sizes in by_batch}) > 1 or by_batch[0].ndim != 1:
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
    """Whether all sizes of ``value`` but the batch are known."""
    return value.shape == [] or known_sizes(value.shape) is not None
