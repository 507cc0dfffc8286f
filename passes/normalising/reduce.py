"""Reduction of a dense output to a score per class, in the graph: a slice of its cells, then a mean, maximum or sum.

Requires a normalised graph. Ensures that its outputs are [batch, K], unless the driver reduces. Means and sums over maps are
heads, which are updated from the region.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import known_sizes
from kcompiler.passes.normalising.normalise import ROWS
from kcompiler.passes.regions.cells import POINTWISE
from kcompiler.runtime.bundle.reduction import How, Over, Reduction
from kcompiler.runtime.errors import UsageError

OPERATORS: dict[How, str] = {"mean": "ReduceMean", "max": "ReduceMax", "sum": "ReduceSum"}
TO_LAST = [0, 2, 3, 1]
MAPS = 4
"""Number of axes of a batch of maps."""
HALF = 0.5
"""A sigmoid's output above which a cell belongs to the class, where there is only that class."""


@dataclass(frozen=True, slots=True)
class Reducing:
    """The user's options for the reduction of a dense output.

    Attributes:
        how: the operator over the cells.
        over: all cells, a box, or the cells that the uncovered image assigns to each class.
        box: with "box": (top, left, bottom, right) in cells of the output, half-open; for one axis of cells (first, last).
        class_axis: of the output, its batch being axis 0; None for that of :func:`class_axis_of`.
    """

    how: How
    over: Over = "everything"
    box: tuple[int, ...] | None = None
    class_axis: int | None = None


def reduction_of(graph: gs.Graph, asked: Reducing, *, sigmoid: bool) -> Reduction:
    """Resolves the options ``asked`` for the first output of ``graph``.

    Raises:
        UsageError: the output has a single axis beside the batch, unknown rank or sizes, or does not have the box or class axis.
    """
    output = graph.outputs[0]
    if output.name.endswith(ROWS):
        raise UsageError(f"--reduce: how many axes output {output.name.removesuffix(ROWS)} has is not known before it runs")
    batched = output.shape[0] == 1 or not isinstance(output.shape[0], int)
    sizes = output.shape[1:] if batched else list(output.shape)
    shown = _shown(output)
    if len(sizes) < 2:
        raise UsageError(f"--reduce: {shown} is one row of numbers an image, so there is nothing to reduce; leave --reduce out")
    if any(not isinstance(size, int) for size in sizes):
        raise UsageError(f"--reduce: {shown} has sizes that are not known before it runs; export the model with fixed sizes")
    default, requested = class_axis_of(output, len(sizes)), asked.class_axis
    axis = default if requested is None else _checked_axis(requested, len(sizes), shown)
    cells = [size for place, size in enumerate(sizes) if place != axis]
    if asked.box is not None:
        _check_box(asked.box, cells, shown)
    above = HALF if sigmoid else 0.0
    over: Over = "box" if asked.box is not None else asked.over
    return Reduction(how=asked.how, over=over, shape=tuple(sizes), axis=axis, box=asked.box, above=above)


def _shown(output: gs.Tensor) -> str:
    """Name and shape of an output for messages, a free batch as N."""
    first, *sizes = output.shape
    return f"output {output.name} [{', '.join(str(size) for size in (first if isinstance(first, int) else 'N', *sizes))}]"


def class_axis_of(output: gs.Tensor, count: int) -> int:
    """Index, among the last ``count`` axes, of the classes.

    It is the axis of a final softmax, else the last axis for rows and for maps transposed to channels last, else the first.
    """
    value = output
    while len(value.inputs) == 1:
        (node,) = value.inputs
        if node.op in ("Softmax", "LogSoftmax"):
            return int(node.attrs.get("axis", -1)) % len(output.shape) - (len(output.shape) - count)
        if node.op == "Transpose" and list(node.attrs.get("perm") or []) == TO_LAST:
            return count - 1
        if node.op not in POINTWISE:
            break
        value = node.inputs[0]
    return 0 if count >= MAPS - 1 else count - 1


def _checked_axis(axis: int, count: int, shown: str) -> int:
    place = axis - 1 if axis >= 0 else count + axis
    if not 0 <= place < count:
        raise UsageError(f"--class-axis is {axis}, but {shown} has the axes 1 to {count} besides its batch")
    return place


def _check_box(box: tuple[int, ...], cells: list[int], shown: str) -> None:
    """Checks that a box is nonempty and lies inside the map.

    Raises:
        UsageError: it does not.
    """
    count = len(cells)
    order = "top,left,bottom,right" if count == 2 else "first,last" if count == 1 else "all beginnings, then all ends"
    if len(box) != 2 * count:
        raise UsageError(f"--reduce-box is {list(box)}, but the cells of {shown} are {cells}: expected {order}")
    if not all(0 <= first < last <= size for first, last, size in zip(box[:count], box[count:], cells, strict=True)):
        raise UsageError(
            f"--reduce-box {list(box)} is not a box inside the cells {cells} of {shown}; expected {order}, half-open, in "
            "cells of the output, not in pixels of the image"
        )


def described(graph: gs.Graph, reduction: Reduction) -> str:
    """The reduction in words, for the report. ``graph`` is the graph before it."""
    output, cells = graph.outputs[0], reduction.numbers // reduction.classes
    inner = {
        "everything": f"all its {cells} cells",
        "box": f"the cells {list(reduction.box or ())} of it",
        "class": "the cells which the uncovered image gives class k, NaN where there are none",
    }[reduction.over]
    how, classes, axis = reduction.how, reduction.classes, reduction.axis + 1
    return (
        f"{_shown(output)} is reduced: number k of {classes} is the {how} of class k over {inner}; classes "
        f"are along axis {axis} (--class-axis says otherwise)"
    )


def reduce_outputs(graph: gs.Graph, reduction: Reduction) -> None:
    """Reduces the explained output, and in the same way the logits if they have its shape.

    Logits of another shape are no output any more. Where the driver reduces, these outputs are unchanged.
    """
    first = graph.outputs[0]
    graph.outputs = [value for value in graph.outputs if value.shape == first.shape]
    if reduction.by_driver:
        return
    batched = len(first.shape) - len(reduction.shape)
    axes = [place + batched for place in range(len(reduction.shape)) if place != reduction.axis]
    emit = Emitter(graph)
    reduced = [_reduced(emit, value, reduction, axes, batched) for value in graph.outputs]
    graph.outputs = reduced
    graph.cleanup().toposort()


def _reduced(emit: Emitter, value: gs.Tensor, reduction: Reduction, axes: list[int], batched: int) -> gs.Variable:
    cells = value
    if reduction.box is not None:
        starts, ends = (emit.int64(part) for part in (reduction.box[: len(axes)], reduction.box[len(axes) :]))
        cells = emit("Slice", value, starts, ends, emit.int64(axes), name=f"{value.name}/box")
        sizes = list(value.shape)
        for axis, first, last in zip(axes, reduction.box, reduction.box[len(axes) :], strict=False):
            sizes[axis] = last - first
        cells.dtype, cells.shape = value.dtype, sizes
    name, sizes = f"{value.name}/{reduction.how}", list(cells.shape)
    if value.dtype != np.float32:  # the mean of integers would be an integer, and float16 sums overflow
        cells = emit("Cast", cells, name=f"{value.name}/float32", to=TensorProto.FLOAT)
        cells.dtype, cells.shape = np.dtype(np.float32), sizes
    if reduction.how != "max" and len(axes) > 1:
        # Lines first: ONNX Runtime accumulates sequentially, and over all cells of a map that rounds more than a patch changes.
        cells = emit(OPERATORS[reduction.how], cells, emit.int64(axes[-1:]), name=f"{name}/lines", keepdims=1)
        cells.dtype, cells.shape = np.dtype(np.float32), [1 if axis == axes[-1] else size for axis, size in enumerate(sizes)]
    result = emit(OPERATORS[reduction.how], cells, emit.int64(axes), name=name, keepdims=0)
    result.dtype, result.shape = np.dtype(np.float32), [*value.shape[:batched], reduction.classes]
    return result


def numbers_of(graph: gs.Graph) -> int | None:
    """Elements of the first output for one image; None if unknown."""
    sizes = known_sizes(graph.outputs[0].shape)
    return prod(sizes) if sizes is not None else None
