"""Micro-batches: regions of a batch go through a depthwise convolution and what follows it a few at a time.

A depthwise convolution does little with what it reads: gathering regions, bringing them into ONNX Runtime's blocked layout
and out of it takes as long, and all of it moves what has just been written. As many regions as fit in a core's cache are
taken at once, from the Gather until they are rows again. Indices and union tables stay those of the whole batch. MobileNetV1
took 0.93 of the time, MobileNetV2 and MNASNet 0.97. Where convolutions do more (ResNeXt, RegNetX: 1.04 and 1.1), or nothing
but the depthwise one is left in the blocked layout (ConvNeXt), it does not pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.exchange.blocks import ACTIVATIONS
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.work import CACHE_BYTES

LARGEST_WEIGHTS = 4 * CACHE_BYTES
"""Of the convolutions of a chain together: they are read again by each micro-batch."""
FEWEST, MOST = 4, 16
"""Micro-batches of a batch. Two gained nothing, and each has nodes of its own."""
ROWS_OF_MAPS = [0, 2, 3, 1]


def in_microbatches(emit: Emitter, positions: gs.Tensor, gathered: Mapping[str, float], batch: int) -> None:
    """Repeats chains of nodes of the graph under construction, for a part of the batch each.

    Requires that the graph is complete but for the places of regions. Ensures the same outputs for any number of positions;
    some micro-batches of a batch that is not full may be empty.

    Args:
        positions: int64 [batch, 2].
        gathered: names of the maps that depthwise convolutions make of gathered regions, and the bytes of those of a position, as
            rows and in the blocked layout.
        batch: positions that a batch is planned to have.
    """
    tensors = emit.graph.tensors()
    for name, held in gathered.items():
        count = _count(held * batch)
        chain = _chain(tensors[name])
        convolutions = [node for node in chain if node.op == "Conv"]
        if count >= FEWEST and len(convolutions) > 1 and _weight_bytes(convolutions) <= LARGEST_WEIGHTS:
            _repeat(emit, chain, count, _sizes(emit, positions, count))


def _count(held: float) -> int:
    """Of micro-batches, a power of two so that batches divide evenly.

    Regions that are mostly empty, behind windows that the patch often misses, hold nothing by their mean extent, or less.
    """
    return min(1 << round(log2(max(held / CACHE_BYTES, 1))), MOST)


def _chain(maps: gs.Tensor) -> list[gs.Node]:
    """From the Gather of regions over the convolution that makes ``maps`` to the rows of a region; empty if there is none."""
    (convolution,) = maps.inputs
    chain = [convolution]
    for operator in ("Transpose", "Gather"):
        read = chain[0].inputs[0]
        if not read.inputs or read.inputs[0].op != operator or len(read.outputs) > 1:
            return []
        chain.insert(0, read.inputs[0])
    last = maps
    while len(last.outputs) == 1 and _goes_on(last.outputs[0], last):
        chain.append(last.outputs[0])
        (last,) = chain[-1].outputs
    return chain if chain[-1].op == "Reshape" else []


def _goes_on(node: gs.Node, value: gs.Tensor) -> bool:
    """Whether ``node`` does with a part of the batch what it does with the whole."""
    if node.inputs[0] is not value or not all(isinstance(other, gs.Constant) for other in node.inputs[1:]):
        return False
    if node.op == "Reshape":
        (before,) = value.inputs
        return before.op == "Transpose" and list(before.attrs["perm"]) == ROWS_OF_MAPS and len(node.inputs[1].values) == 2
    return node.op in ("Conv", *ACTIVATIONS) or (node.op == "Transpose" and list(node.attrs["perm"]) == ROWS_OF_MAPS)


def _weight_bytes(convolutions: list[gs.Node]) -> int:
    return sum(value.values.nbytes for node in convolutions for value in node.inputs[1:])


def _sizes(emit: Emitter, positions: gs.Tensor, count: int) -> gs.Variable:
    """Positions of each micro-batch, int64 [count]: as many in all but the last ones."""
    number = emit("Slice", emit("Shape", positions), emit.int64([0]), emit.int64([1]))
    size = emit("Div", emit("Add", number, emit.int64([count - 1])), emit.int64([count]))
    left = emit("Sub", number, emit("Mul", size, emit.int64(np.arange(count))))
    return emit("Min", emit("Max", left, emit.int64([0])), size)


def _repeat(emit: Emitter, chain: list[gs.Node], count: int, sizes: gs.Tensor) -> None:
    gather, *others = chain
    union, index = gather.inputs
    parts = [emit("Gather", union, part, axis=0) for part in emit.several("Split", count, index, sizes)]
    for node in others:
        parts = [emit(node.op, part, *node.inputs[1:], **node.attrs) for part in parts]
    (whole,) = chain[-1].outputs
    for node in list(whole.outputs):
        joined = parts if node.op == "Concat" and node.attrs["axis"] == 0 else [emit("Concat", *parts, axis=0)]
        node.inputs = [one for value in node.inputs for one in (joined if value is whole else [value])]
