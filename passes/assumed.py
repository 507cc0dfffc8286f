"""Assumptions on ONNX Runtime and on the machine, in one place. They affect speed only, never correctness.

Figures were measured on two cores with AVX-512 and ONNX Runtime 1.31 and 1.32. ``tests/bench/ablation.py`` measures the gain of
each exchange and layout that rests on them.
"""

from __future__ import annotations

CACHE_BYTES = 1 << 20
"""Cache of a core: the L2 cache of current server processors has 1 or 2 MiB."""
MEMORY_BYTES = 16 * CACHE_BYTES
"""Size from which activations exceed a core's share of all caches."""

PRODUCTS, CONVOLVED, INTEGER = 140e9, 140e9, 400e9
"""FLOP/s of matrix products and of convolutions, operations/s of products of 8-bit integers, all cores together."""
MOVED = 15e9
"""Bytes/s of passes over activations in main memory."""
NODE = 6e-6
"""Seconds to start an operator."""
CACHED = 0.5
"""Fraction of the time of a pass that is saved when the activations are in a core's own cache. With it, predicted times of
batches of 4, 8 and 32, relative to 16, are within 6% of measured times (rms over 12 networks). Without, they are within 9%, and
any larger batch is predicted to be faster."""
TYPICAL_SHARE = 0.5
"""Fraction of the traffic of passes that is in caches where the batch size is not considered."""
READ_ONLY = 0.75
"""Time to read n bytes over that of a pass over n bytes, half of them written."""
BASELINE_PASSES = 2.0
"""Time of the baseline pass, in images of full inference at its best batch size: one image is slower, and tables are written."""

STRIPE, SLAB = 128, 256
"""Columns and depth of a block of a matrix product. A 1x1 convolution in NCHWc, both reorders included, takes 0.69 to 0.98 of a
Gemm's time at depths of 1024 and 2048, 0.94 to 1.07 at 256 (784 rows or more, 128 columns or more). Predicted: 0.80 to 0.99, and
0.94 to 1.14."""
PACKED = 2.5
"""Times that a matrix product moves its weights: they are read, packed and read again."""
INTEGERS_FASTER = 2.0
"""Speed of one 8-bit matrix product for the whole batch over an 8-bit convolution of regions. Measured: 1.4 to 1.9 from 128
channels on, on one thread."""
CELL_BYTES = 128.0
"""Cost of gathering a cell of 8-bit integers, however few its channels, as bytes moved in the same time: 10 ns."""

BLOCK = 16
"""Channels of a block of ONNX Runtime's blocked layout (NCHWc), at most."""
BLOCKED_ACTIVATIONS = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSigmoid")
"""Pointwise operators without a parameter per channel that ONNX Runtime runs in NCHWc where their input is in it."""
GO_ON_BLOCKED = ("Add", "Sum", "Mul", "Concat", "BatchNormalization", *BLOCKED_ACTIVATIONS)
"""Operators that ONNX Runtime runs in NCHWc where their inputs are in it."""

COPIES = 2.0
"""Additional passes over the cells read where they are gathered before the updated rows are concatenated."""
OVERHANG_COST = 8.0
"""Cost of an overhanging row in later nodes, over that of gathering a row again."""
POOLED = 1024
"""Cells of a map up to which its region, held as maps, is summed by a pool: a pool accumulates sequentially, which rounds."""

FEWEST_MICROBATCHES, MOST_MICROBATCHES = 4, 16
"""Micro-batches in a batch. Two gained nothing, and each has its own nodes to start."""
LARGEST_WEIGHTS = 4 * CACHE_BYTES
"""Bytes of the weights of all convolutions in a micro-batch: each micro-batch reads them again."""

WIDEST_SPLIT = 7
"""Outputs of a Split: every WebGPU device allows a kernel eight storage buffers, of which the input takes one. A wider Split
fails at run time. A wider Concat does not, because its kernel runs in passes; nested ones took 1.05 of MobileNetV1's time."""
ALIGNMENT = 4096
"""Offsets of weights are multiples of a memory page, so that a runtime can map them instead of reading them."""
TABLE_BYTES = 1 << 20
"""Integer constants below this size stay in the model: index tables, which variants hardly share, and sizes, which ONNX Runtime's
shape inference needs and does not read from external files."""

CUDA_PRODUCTS, CUDA_CONVOLVED = 45e12, 35e12
"""FLOP/s of float32 products and convolutions without TF32 on a data-centre GPU (H100, H200). Not measured: two thirds and half
of the published peak."""
CUDA_MOVED = 3e12
"""Bytes/s of passes over its memory. Not measured: two thirds of the published peak."""
CUDA_NODE = 4e-6
"""Seconds to start a kernel on it. Not measured."""
CUDA_CLASSES = 12
"""Classes of extents; docs/figures.md has the share of the redundancy ratio with tight extents that each number of them keeps."""
