"""Micro-batches: regions of a batch go through a depthwise convolution and what follows it a few at a time.

A depthwise convolution does little with what it reads: gathering regions, bringing them into ONNX Runtime's blocked layout
and out of it takes as long, and all of it moves what has just been written. As many regions as fit in a core's cache are
taken at once, from the Gather until they are rows again. Indices and union tables stay those of the whole batch. MobileNetV1
took 0.93 of the time, MobileNetV2 and MNASNet 0.97. Where convolutions do more (ResNeXt, RegNetX: 1.04 and 1.1), or nothing
but the depthwise one is left in the blocked layout (ConvNeXt), it does not pay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.operand import MicroBatch


def microbatches(emit: Emitter, positions: gs.Tensor, count: int) -> list[MicroBatch]:
    """``count`` micro-batches of the batch of ``positions`` (int64 [batch, 2]): as many in all but the last ones.

    Some of a batch that is not full may be empty.
    """
    number = emit("Slice", emit("Shape", positions), emit.int64([0]), emit.int64([1]))
    size = emit("Div", emit("Add", number, emit.int64([count - 1])), emit.int64([count]))
    left = emit("Sub", number, emit("Mul", size, emit.int64(np.arange(count))))
    sizes = emit("Min", emit("Max", left, emit.int64([0])), size)
    return [MicroBatch(part, sizes, count) for part in range(count)]


def joined(emit: Emitter, parts: Sequence[gs.Tensor]) -> gs.Variable:
    """The rows of micro-batches as those of the batch."""
    return emit("Concat", *parts, axis=0)


def join_at_once(rows: Sequence[gs.Tensor]) -> None:
    """Where ``rows``, each :func:`joined`, are only read to be joined on to others, all is joined at once: a copy less."""
    for whole in rows:
        (join,) = whole.inputs
        for reader in list(whole.outputs):
            if reader.op == "Concat" and reader.attrs["axis"] == 0:
                reader.inputs = [part for value in reader.inputs for part in (join.inputs if value is whole else [value])]
