"""Micro-batches: a chain that starts with a depthwise convolution runs once for each slice of the batch.

A depthwise convolution has few operations per element: gathering regions and converting them to NCHWc and back takes as long,
and each step moves what the last has just written. A micro-batch has as many regions as fit in a core's cache, from the Gather
until they are rows again. Indices and union tables are those of the whole batch. MobileNetV1 took 0.93 of the time, MobileNetV2
and MNASNet 0.97. It does not pay where convolutions have more operations per element (ResNeXt, RegNetX: 1.04 and 1.1), or where
the depthwise convolution alone runs in NCHWc (ConvNeXt).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.operand import MicroBatch


def batch_size(emit: Emitter, positions: gs.Tensor) -> gs.Variable:
    """The number of ``positions`` (int64 [batch, 2]): int64 [1]."""
    return emit("Slice", emit("Shape", positions), emit.int64([0]), emit.int64([1]))


def microbatches(emit: Emitter, positions: gs.Tensor, count: int) -> list[MicroBatch]:
    """``count`` micro-batches of the batch of ``positions`` (int64 [batch, 2]), as equal as can be.

    Some are empty where there are fewer than ``count`` positions. WebGPU's convolution fails on these, so map models fill their
    batches (``deployment/batches.py``). Elsewhere an empty one takes less than repeated positions would.
    """
    sizes = emit("Div", emit("Add", batch_size(emit, positions), emit.int64(np.arange(count))), emit.int64([count]))
    return [MicroBatch(part, sizes, count) for part in range(count)]


def joined(emit: Emitter, parts: Sequence[gs.Tensor]) -> gs.Variable:
    """The rows of all micro-batches, concatenated to the rows of the batch."""
    return emit("Concat", *parts, axis=0)


def join_at_once(rows: Sequence[gs.Tensor]) -> None:
    """Merges each Concat of ``rows`` (outputs of :func:`joined`) into the Concats that read it, which saves a copy."""
    for whole in rows:
        (join,) = whole.inputs
        for reader in list(whole.outputs):
            if reader.op == "Concat" and reader.attrs["axis"] == 0:
                reader.inputs = [part for value in reader.inputs for part in (join.inputs if value is whole else [value])]
