"""What is assumed of ONNX Runtime and of the machine, in one place: what is fast is decided by it, never what is right.

Figures are of two cores with AVX-512 and ONNX Runtime 1.31 and 1.32. ``tests/bench/ablation.py`` shows what each exchange and
layout that rests on them still gives.
"""

from __future__ import annotations

CACHE_BYTES = 1 << 20
"""Of a core: level 2 of current server processors has 1 or 2 MiB."""
MEMORY_BYTES = 16 * CACHE_BYTES
"""What a core's share of all caches does not hold."""

PRODUCTS, CONVOLVED, INTEGER = 140e9, 140e9, 400e9
"""FLOP/s of matrix products and of convolutions, operations/s of products of 8-bit integers, all cores together."""
MOVED = 15e9
"""Bytes/s of passes over activations that lie in memory."""
NODE = 6e-6
"""Seconds that starting an operator takes."""
CACHED = 0.5
"""Share of a pass that it saves to have the activations in a core's own cache. With it, predictions follow what batches of 4, 8
and 32 take, relative to 16, within 6% (rms over 12 networks); without, within 9%, and every larger batch looked better."""
TYPICAL_SHARE = 0.5
"""Of what passes read and write, in caches."""
READ_ONLY = 0.75
"""Share of the time of a pass, of which half is writing, that reading as much takes."""
BASELINE_PASSES = 2.0
"""What the baseline pass takes, in images of full inference at its best batch: one image alone is slower, and leaves tables."""

STRIPE, SLAB = 128, 256
"""Columns and depth that a matrix product takes at a time. A 1x1 convolution in the blocked layout, both reorders included, takes
0.69 to 0.98 of a Gemm's time at depths of 1024 and 2048, 0.94 to 1.07 at 256 (784 rows or more, 128 columns or more). Predicted:
0.80 to 0.99, and 0.94 to 1.14."""
PACKED = 2.5
"""Times that a product moves its weights: they are read, packed and read again."""
INTEGERS_FASTER = 2.0
"""Than a convolution of 8-bit integers on regions is a product of all of them: 1.4 to 1.9 from 128 channels on, on one thread."""
CELL_BYTES = 128.0
"""Bytes that are moved in the time that it takes to begin with another cell, of however few channels of 8-bit integers: 10 ns."""

BLOCK = 16
"""Channels of a block of ONNX Runtime's blocked layout, at most."""
BLOCKED_ACTIVATIONS = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSigmoid")
"""Operators cell by cell, without a number a channel, that go on in the blocked layout."""
GO_ON_BLOCKED = ("Add", "Sum", "Mul", "Concat", "BatchNormalization", *BLOCKED_ACTIVATIONS)
"""Operators that ONNX Runtime runs in its blocked layout where their inputs are in it."""

COPIES = 2.0
"""Passes over the cells read that it takes more to copy them before the updated rows are joined on."""
TYPICAL_BATCH = 64
"""Positions for which it is decided whether they are copied."""
OVERHANG_COST = 8.0
"""What a row more costs in later nodes, over reading a row again."""
REORDERING = 40.0
"""Products a number for which to bring rows to another order, which moves each number twice."""
POOLED = 1024
"""Cells of a map up to which a region of it that is held as maps is pooled: a pool adds up cell by cell."""

FEWEST_MICROBATCHES, MOST_MICROBATCHES = 4, 16
"""Of a batch. Two gained nothing, and each has nodes of its own."""
LARGEST_WEIGHTS = 4 * CACHE_BYTES
"""Of the convolutions of micro-batches together: they are read again by each."""

ALIGNMENT = 4096
"""Offsets of weights are multiples of a memory page, so that a runtime can map them instead of reading them."""
TABLE_BYTES = 1 << 20
"""Integers below this size stay in the model: tables of indices, which variants hardly share, and sizes, which ONNX Runtime must
read to infer shapes and does not look for in another file."""
