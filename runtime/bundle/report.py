"""The report of a bundle: how each node was compiled, and the redundancy and speed-up that this gives."""

from __future__ import annotations

from collections.abc import Mapping

from kcompiler.runtime.records import NotNegative, Positive, Record

UPDATED = "changes everywhere, but is updated by what changed in its input"
"""The reason given for a node that reads a whole map, but is updated by the change of the map alone (a mean over all cells)."""

NO_VARIANT = "no variant"
"""How the note on an approximate variant that was requested and not written begins."""
ONLY_SAMPLING = "only sampling the positions can make its maps faster ('kcompiler tune')"
"""What is left where nothing of a model is incremental."""


class NodeReport(Record):
    """How a node was compiled.

    Attributes:
        node, operator: name and operator type in the normalised model.
        source: name of the node of the file that it stems from, or of its first output if that node has none; empty if
            normalisation made it, None if that is not known (bundles of earlier versions).
        incremental: whether only the region is recomputed.
        lowering: name of the lowering of an incremental node.
        layout: how the region of the output is held: rows in some order, or channels first.
        copies: whether a batch copies the cached cells that the node reads around regions; else it copies their whole cached map.
        microbatches: number of parts of a batch in which the node is computed, one after the other.
        reason: why the node is dense; empty otherwise.
        follows: name of the input that is the reason; empty if the node itself is.
        updated: whether the node reads a whole map, and is updated by what changed in it.
        map: (height, width) of the output; None if it is not a feature map.
        extent: (height, width) of the largest region; None where the patch can change the whole output.
        share: mean share of the output that the region covers, at stride 1; 1 where the whole output can change.
        flops: FLOPs of a full evaluation (convolutions and fully connected layers, 2 per multiply-add; 0 for others).
    """

    node: str
    operator: str
    source: str | None = None
    incremental: bool
    lowering: str
    layout: str = ""
    copies: bool = False
    microbatches: Positive = 1
    reason: str
    follows: str = ""
    updated: bool = False
    map: tuple[int, int] | None
    extent: tuple[int, int] | None
    share: float
    flops: int


class Redundancy(Record):
    """Full over recomputed FLOPs for a square patch.

    Attributes:
        patch: side of the patch, in pixels.
        paper: the ratio in the paper's counting (worst position, padded widths).
        tight: the ratio by exact spans.
    """

    patch: Positive
    paper: float
    tight: float


class Report(Record):
    """What the compiler did.

    Attributes:
        source_operators, normalised_operators, incremental_operators: counts by operator type in each of these models.
        parameters: number of weights of the normalised model.
        flops: FLOPs of convolutions and fully connected layers in a full inference.
        redundancy_paper: full over recomputed FLOPs in the paper's counting (worst position, padded widths).
        redundancy_tight: full over mean recomputed FLOPs, by exact spans, on a grid of stride ``redundancy_stride``.
        redundancy_stride: stride of that grid, in pixels.
        bytes_per_position: estimated bytes per position of a batch, of the largest tensors alive at the same time.
        bytes_per_batch: bytes of a batch beside that, whatever its size: a copy of the largest cached activation.
        table_bytes: size of the cached activations.
        redundancies: the same two ratios for other square patches.
        predicted_seconds: seconds per position, on the machine that the compiler chose lowerings for.
        predicted_full_seconds: seconds per position of full inference.
        predicted_speedup: their ratio.
        transform_error: predicted relative rms error that transformed convolutions add.
        largest_error: largest error against full inference at compile time.
        nodes: all nodes, in graph order.
        notes: substitutions that the compiler made, and other things that a user should know.
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
