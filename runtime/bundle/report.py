"""The report of a bundle: node by node what became of the model, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping

from kcompiler.runtime.records import NotNegative, Positive, Record

UPDATED = "changes everywhere, but is updated by what changed in its input"
"""The reason of a node that reads a whole map and yet needs none."""


class NodeReport(Record):
    """What became of one node.

    Attributes:
        node, operator: as in the normalised model.
        incremental: whether only the region is recomputed.
        lowering: how, for an incremental node.
        layout: how the region of its output is held.
        microbatches: parts of a batch in which it is computed, one after the other.
        reason: why it is dense, otherwise empty.
        follows: name of the value that it reads and that is the reason, empty if the node itself is.
        updated: whether it reads a whole map, and is updated by what changed in it.
        map: (height, width) of its output, None if it is no map.
        extent: (height, width) of the largest region, None where the value changes everywhere.
        share: mean share of the map that the region covers at stride 1; 1 where it changes everywhere.
        flops: of one full evaluation (convolutions and fully connected layers; 2 per multiply-add), else 0.
    """

    node: str
    operator: str
    incremental: bool
    lowering: str
    layout: str = ""
    microbatches: Positive = 1
    reason: str
    follows: str = ""
    updated: bool = False
    map: tuple[int, int] | None
    extent: tuple[int, int] | None
    share: float
    flops: int


class Redundancy(Record):
    """Full over recomputed FLOPs for a square patch of ``patch`` pixels a side, as the paper counts and tight."""

    patch: Positive
    paper: float
    tight: float


class Report(Record):
    """What the compiler did.

    Attributes:
        source_operators, normalised_operators, incremental_operators: operator counts before and after.
        parameters: numbers in the weights of the normalised model.
        flops: convolutions and fully connected layers of one full inference.
        redundancy_paper: full over recomputed FLOPs in the paper's counting (worst position, padded widths).
        redundancy_tight: full over mean recomputed FLOPs, exact spans, grid of ``redundancy_stride``.
        bytes_per_position: estimate of the largest tensors alive at once, a position of a batch.
        bytes_per_batch: what a batch takes beside that, however small: the largest cached activation, copied.
        table_bytes: size of the cached activations.
        redundancies: the same two ratios for other square patches.
        predicted_seconds: of a position, on the machine that the choices were made for.
        predicted_full_seconds: the same of full inference.
        predicted_speedup: their ratio.
        transform_error: predicted rms error, relative to the outputs', that transformed convolutions add.
        largest_error: against full inference at compile time.
        nodes: per node, in graph order.
        notes: what was taken instead of what, and other things that a user should know.
    """

    source_operators: Mapping[str, int]
    normalised_operators: Mapping[str, int]
    incremental_operators: Mapping[str, int]
    parameters: int
    flops: int
    redundancy_paper: float
    redundancy_tight: float
    redundancy_stride: int
    bytes_per_position: Positive
    bytes_per_batch: NotNegative
    table_bytes: NotNegative
    redundancies: tuple[Redundancy, ...]
    predicted_seconds: float
    predicted_full_seconds: float
    predicted_speedup: float
    transform_error: float
    largest_error: float | None
    nodes: tuple[NodeReport, ...]
    notes: tuple[str, ...] = ()
