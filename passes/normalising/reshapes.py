"""Replaces a chain of reshapes, transpositions and squeezes from a map to a map by the equivalent operator.

The equivalent operator is not derived from attributes. The chain is executed on the indices of its source's elements, and the
resulting permutation is compared with those of operators that region rules support. So x[:, 1] with its axis restored, a pixel
unshuffle of three nodes, and a flattening that is undone later are all the same case. Activations inside the chain, and
arithmetic with a scalar, are pointwise, and move behind it.

Requires a graph with inferred shapes. Ensures: the same outputs, under the same names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import has_one_reader, is_output, known_sizes
from kcompiler.passes.regions.cells import MERGES, POINTWISE
from kcompiler.passes.regions.channels import TO_FIRST, TO_LAST
from kcompiler.runtime.arrays import AnyArray

CELLS = 1 << 24
"""Elements of the largest map on which a chain is executed."""
ROW_MAJOR = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that keep the row-major order of elements."""
CELL_BY_CELL = {*POINTWISE, *MERGES} - {"BatchNormalization", "Dropout"}
Cells = npt.NDArray[np.int32]
Step = tuple[str, dict[str, object], Sequence[gs.Tensor], Sequence[int]]
"""Operator, attributes, constant inputs, and the sizes [C, H, W] of the output."""


def straighten(graph: gs.Graph, emit: Emitter) -> None:
    """Rewrites ``graph``, to which ``emit`` appends, in place."""
    for last in list(graph.nodes):
        candidates = [(steps, _equivalent(emit, steps)) for steps in _chains(graph, last)]
        known_forms = [(steps, form) for steps, form in candidates if form is not None]
        if known_forms:
            _replace(graph, emit, *min(known_forms, key=lambda pair: len(pair[1])))
    graph.cleanup().toposort()


def _chains(graph: gs.Graph, last: gs.Node) -> Iterator[list[gs.Node]]:
    """The chains from a map to the output of ``last``, if that is a map: the shortest first."""
    steps: list[gs.Node] = []
    node = last
    while _moves(node) or (steps and _has_one_reader(graph, node) and _cell_by_cell(node)):
        steps.insert(0, node)
        source = _data(node)
        is_canonical = steps == [last] and last.op in ("Transpose", "Gather")
        if _moves(node) and not is_canonical and _is_map(source) and _is_map(last.outputs[0]):
            yield list(steps)
        if not source.inputs:
            return
        node = source.inputs[0]


def _is_map(value: gs.Tensor) -> bool:
    sizes = known_sizes(value.shape)
    return sizes is not None and len(sizes) == 3 and 0 < math.prod(sizes) <= CELLS


def _data(node: gs.Node) -> gs.Tensor:
    return next(value for value in node.inputs if not isinstance(value, gs.Constant) and not value.is_empty())


def _has_one_reader(graph: gs.Graph, node: gs.Node) -> bool:
    """Whether ``node`` has a single output with a single reader."""
    return len(node.outputs) == 1 and has_one_reader(graph, node.outputs[0])


def _is_number(value: gs.Tensor) -> bool:
    return value.is_empty() or (isinstance(value, gs.Constant) and math.prod(value.shape) == 1)


def _moves(node: gs.Node) -> bool:
    """Whether ``node`` moves or selects elements within each image, independently of their values."""
    if len(node.inputs) == 0 or len(node.outputs) != 1 or isinstance(node.inputs[0], gs.Constant):
        return False
    before, after = known_sizes(node.inputs[0].shape), known_sizes(node.outputs[0].shape)
    if before is None or after is None:
        return False
    if node.op == "Transpose":
        return _order(node)[0] == 0
    if node.op == "Gather":
        axis = node.attrs.get("axis", 0) % (len(before) + 1)
        return _is_number(node.inputs[1]) and axis > 0 and _is_within(node.inputs[1].values, before[axis - 1])
    return node.op in ROW_MAJOR and math.prod(before) == math.prod(after)  # so the first axis is the batch on both sides


def _is_within(indices: AnyArray, size: int) -> bool:
    """Whether all indices are of a list of ``size``; others are left to ONNX Runtime, which refuses them."""
    return bool(((indices >= -size) & (indices < size)).all())


def _order(transpose: gs.Node) -> list[int]:
    return list(transpose.attrs.get("perm") or range(len(transpose.inputs[0].shape))[::-1])


def _cell_by_cell(node: gs.Node) -> bool:
    """Whether ``node`` is pointwise: it computes each element from that of the same index, and scalars."""
    values = [value for value in node.inputs if not _is_number(value)]
    if node.op not in CELL_BY_CELL or len(values) != 1 or isinstance(values[0], gs.Constant):
        return False
    rank = len(values[0].shape or ())
    return all(value.is_empty() or value is values[0] or len(value.shape) <= rank for value in node.inputs)


def _equivalent(emit: Emitter, steps: Sequence[gs.Node]) -> list[Step] | None:
    """The operators that permute elements as the chain does, if it has a known form; else None."""
    sizes = known_sizes(_data(steps[0]).shape) or []
    numbers: Cells = np.arange(math.prod(sizes), dtype=np.int32).reshape(sizes)
    moved = numbers
    for step in steps:
        if step.op == "Transpose":
            moved = moved.transpose([axis - 1 for axis in _order(step)[1:]])
        elif step.op == "Gather":
            index, axis = np.ravel(step.inputs[1].values), step.attrs["axis"] % len(step.inputs[0].shape)
            moved = moved.take(index, axis - 1)
        moved = moved.reshape(known_sizes(step.outputs[0].shape) or [])
    forms = (form(emit, numbers, moved) for form in (_identity, _channels, _transposition, _to_depth, _to_space))
    return next((form for form in forms if form is not None), None)


def _identity(emit: Emitter, numbers: Cells, moved: Cells) -> list[Step] | None:
    return [] if np.array_equal(numbers, moved) else None


def _channels(emit: Emitter, numbers: Cells, moved: Cells) -> list[Step] | None:
    taken = _taken(numbers, moved)
    return None if taken is None else _gather(emit, taken, numbers)


def _transposition(emit: Emitter, numbers: Cells, moved: Cells) -> list[Step] | None:
    for order in (TO_LAST, TO_FIRST):
        if np.array_equal(numbers.transpose([axis - 1 for axis in order[1:]]), moved):
            return [("Transpose", {"perm": order}, [], moved.shape)]
    return None


def _to_depth(emit: Emitter, numbers: Cells, moved: Cells) -> list[Step] | None:
    """SpaceToDepth, then a permutation or selection of channels."""
    block = _block(numbers, moved)
    if block is None:
        return None
    blocks = _blocks(numbers, block)
    taken = _taken(blocks, moved)
    step: Step = ("SpaceToDepth", {"blocksize": block}, [], blocks.shape)
    return None if taken is None else [step, *_gather(emit, taken, blocks)]


def _to_space(emit: Emitter, numbers: Cells, moved: Cells) -> list[Step] | None:
    """DepthToSpace, after a permutation of channels if neither of its modes has that order."""
    block = _block(moved, numbers)
    if block is None:
        return None
    for mode, channels_first in (("DCR", False), ("CRD", True)):
        if np.array_equal(_blocks(moved, block, channels_first=channels_first), numbers):
            return [("DepthToSpace", {"blocksize": block, "mode": mode}, [], moved.shape)]
    taken = _taken(numbers, _blocks(moved, block))
    step: Step = ("DepthToSpace", {"blocksize": block}, [], moved.shape)
    return None if taken is None else [*_gather(emit, taken, numbers), step]


def _block(large: Cells, small: Cells) -> int | None:
    """Side of the square blocks of ``large`` that correspond to the cells of ``small``; None if there is none above 1."""
    (_, height, width), (_, rows, columns) = large.shape, small.shape
    block = height // rows
    return block if block > 1 and (height, width) == (rows * block, columns * block) else None


def _blocks(maps: Cells, block: int, *, channels_first: bool = False) -> Cells:
    """``maps`` [C, H, W] as [block * block * C, H / block, W / block], in SpaceToDepth order or ``channels_first``."""
    channels, height, width = maps.shape
    split = maps.reshape(channels, height // block, block, width // block, block)
    order = (0, 2, 4, 1, 3) if channels_first else (2, 4, 0, 1, 3)
    return split.transpose(order).reshape(-1, height // block, width // block)


def _taken(maps: Cells, moved: Cells) -> list[int] | None:
    """The index in ``maps`` [C, H, W] of each map of ``moved``; None if one of them is not in ``maps``."""
    if maps.shape[1:] != moved.shape[1:]:
        return None
    place = {first: channel for channel, first in enumerate(maps[:, 0, 0].tolist())}
    taken = [place.get(first, 0) for first in moved[:, 0, 0].tolist()]
    return taken if np.array_equal(maps[taken], moved) else None


def _gather(emit: Emitter, taken: list[int], maps: Cells) -> list[Step]:
    """A Gather of the channels ``taken``; no step if these are all channels in order."""
    if taken == list(range(len(maps))):
        return []
    return [("Gather", {"axis": 1}, [emit.int64(taken)], (len(taken), *maps.shape[1:]))]


def _replace(graph: gs.Graph, emit: Emitter, steps: Sequence[gs.Node], form: Sequence[Step]) -> None:
    """Replaces the chain ``steps`` by the nodes of ``form``, followed by the chain's pointwise nodes."""
    source, target = _data(steps[0]), steps[-1].outputs[0]
    target.shape = [source.shape[0], *(known_sizes(target.shape) or [])]
    computing = [step for step in steps if not _moves(step)]
    steps[-1].outputs.clear()
    value = source
    for op, attributes, constants, sizes in form:
        value = _new_node(emit, op, [value, *constants], attributes, (source.dtype, [source.shape[0], *sizes]))
    for step in computing:
        inputs = [value if operand is _data(step) else _number(emit, operand) for operand in step.inputs]
        value = _new_node(emit, step.op, inputs, step.attrs, (step.outputs[0].dtype, target.shape))
    if value is not source:
        value.inputs[0].outputs = [target]
    elif is_output(graph, target):
        graph.nodes.append(gs.Node("Identity", emit.fresh("Identity"), inputs=[source], outputs=[target]))
    else:
        for reader in list(target.outputs):
            reader.inputs = [source if operand is target else operand for operand in reader.inputs]


def _new_node(
    emit: Emitter, op: str, inputs: Sequence[gs.Tensor], attributes: dict[str, object], kind: tuple[np.dtype[Any], list[object]]
) -> gs.Variable:
    """The output, with ``kind`` (type, shape), of a new node."""
    name = emit.fresh(f"{inputs[0].name}/{op}")
    value = gs.Variable(name, *kind)
    emit.graph.nodes.append(gs.Node(op, name, dict(attributes), list(inputs), [value]))
    return value


def _number(emit: Emitter, value: gs.Tensor) -> gs.Tensor:
    return value if value.is_empty() else emit.constant(np.asarray(value.values).reshape(()), value.name)
