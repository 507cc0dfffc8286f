"""A variant of a compiled model: one compiled form, its files, and the extents of its regions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from kcompiler.runtime.records import NotNegative, Positive, Record

DeviceName = Literal["cpu", "cuda"]
"""The devices that models are compiled for."""


class Geometry(Record):
    """The extents of the regions of some activations, by patch position; the scheduler groups positions by them.

    Attributes:
        work: FLOPs per cell, summed over the nodes that compute these activations.
        heights: height of the region in cells, by the patch's row.
        widths: width of the region in cells, by the patch's column.
    """

    work: float
    heights: tuple[Positive, ...]
    widths: tuple[Positive, ...]


class ExtentClass(Record):
    """A class of batches: each has regions of the same extents, those of the largest at the given positions.

    Attributes:
        rows: rows of the patch; the heights of regions are the largest at these.
        columns: columns of the patch; the widths of regions are the largest at these.
    """

    rows: Annotated[tuple[int, ...], Field(min_length=1)]
    columns: Annotated[tuple[int, ...], Field(min_length=1)]


class Variant(Record):
    """A compiled form of the model. The first variant of a bundle is exact.

    Attributes:
        name: "exact", or a name made of the approximations.
        threshold: largest share of a feature map's height and width that is recomputed (the paper's tau); 1 is exact.
        node_thresholds: thresholds of single nodes, by node name, in place of ``threshold``.
        integers: whether some matrix products use 8-bit integers.
        frozen_gates: number of gates (a number per channel, computed from a whole map) that keep the uncovered image's values.
        whole: whether no node is incremental; full inference then evaluates positions.
        baseline, incremental: file names of the two models.
        batch: batch size, in positions, that was predicted fastest.
        few: number of positions per image below which full inference is predicted to take less time.
        weight_bytes: size of the incremental model's weights.
        bytes_per_position: estimated bytes per position of a batch, of the largest tensors alive at the same time.
        bytes_per_batch: bytes of a batch beside that, whatever its size: a copy of the largest cached activation.
        predicted_speedup: over full inference, on the machine that the compiler chose lowerings for.
        geometries: extents of the recomputed regions.
        device: that it is compiled for.
        index: file name of the model that computes indices from positions; None where the incremental model does that itself.
        classes: the extents that batches may have, in shapes that are known before; empty if each batch has those that its
            positions need.
        microbatches: largest number of micro-batches that a part of the model runs a batch in. A driver for a runtime whose
            convolutions fail on no regions gives it batches of as many positions. 1 in bundles of earlier versions, whose models
            see to that themselves.
        tf32: whether float32 products may round their operands to TF32 (10 bits of mantissa), on devices that have it.
    """

    name: str
    threshold: Annotated[float, Field(gt=0, le=1)]
    node_thresholds: Mapping[str, Annotated[float, Field(gt=0, le=1)]]
    integers: bool
    frozen_gates: NotNegative
    whole: bool
    baseline: str
    incremental: str
    batch: Positive
    few: NotNegative
    weight_bytes: NotNegative
    bytes_per_position: Positive
    bytes_per_batch: NotNegative
    predicted_speedup: float
    geometries: Annotated[tuple[Geometry, ...], Field(min_length=1)]
    device: DeviceName = "cpu"
    index: str | None = None
    classes: tuple[ExtentClass, ...] = ()
    microbatches: Positive = 1
    tf32: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files of its models."""
        return (self.baseline, self.incremental) if self.index is None else (self.baseline, self.incremental, self.index)
