"""How regions are laid out in memory: the layouts there are, and what the choice between them depends on.

A region is held as rows, a cell a row with its channels side by side, in the order of the cells or of tiles of them; or as
maps, channels first, which ONNX Runtime's convolutions and pools take. Which it is for each value is chosen before anything is
emitted (``choosing/layouts.py``), by what each lowering makes of the layouts that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.regions.geometry import Window
from kcompiler.passes.regions.region import Region

Tile = tuple[int, int]
"""(height, width) in outputs."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the region of a value is held.

    Attributes:
        maps: whether channels come first, [batch, C, h, w]; else it is rows, [rows, C].
        tile: (height, width) of the tiles that rows are ordered by; None is region by region, line by line: [batch * h * w, C].
    """

    maps: bool = False
    tile: Tile | None = None

    def __str__(self) -> str:
        """As the report has it."""
        if self.maps:
            return "channels first"
        return f"rows by tiles of {self.tile[0]}x{self.tile[1]}" if self.tile is not None else "rows"


ROWS, MAPS = Layout(), Layout(maps=True)


@dataclass(frozen=True, slots=True)
class Held:
    """A region that a node reads.

    Attributes:
        layout: that it is held in.
        channels: C.
        aligned: whether it lies in the cells of the region that the node computes, at every position.
    """

    layout: Layout
    channels: int
    aligned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """An incremental node and the regions that it reads: what its own layout is chosen by.

    Attributes:
        node: of the source graph.
        reads: per input of the node, the region that is read, or None for a constant.
        windows: (y, x) windows of a sliding-window node, identity windows otherwise.
        region: of the first input that is one; ``last`` says whether channels are last in the source's output.
        channels: C of the output.
        mean_extent: (height, width) of the output's region, the mean over all positions.
    """

    node: gs.Node
    reads: tuple[Held | None, ...]
    windows: tuple[Window, Window]
    region: Region
    last: bool
    channels: int
    mean_extent: tuple[float, float]

    @property
    def first(self) -> Held:
        """The first input, which is the data input of every node but a merge."""
        first = self.reads[0]
        assert first is not None
        return first

    @property
    def regions(self) -> list[Held]:
        """Those of the inputs that are regions."""
        return [held for held in self.reads if held is not None]

    @property
    def in_place(self) -> Layout:
        """Of the first input as a node that goes cell by cell reads it: its own, or rows anew where a threshold leaves less."""
        return self.first.layout if self.first.aligned else ROWS

    @property
    def cell_by_cell(self) -> bool:
        """Whether an output reads one cell of the first input, in the same place of a region that lies alike."""
        return self.first.aligned and all(window.kernel == window.stride == 1 for window in self.windows)

    @property
    def mean_reads(self) -> tuple[float, float]:
        """Cells from the first to the last that the windows of a region touch, along y and x, for the mean extent."""
        y, x = (
            (extent - 1) * window.stride + window.reach for extent, window in zip(self.mean_extent, self.windows, strict=True)
        )
        return y, x

    def attribute(self, name: str, default: object) -> object:
        return self.node.attrs.get(name, default)

    def shared_tile(self) -> Tile | None:
        """The order of rows for a merge: few inputs to read again, few rows that overhang (all that follows computes them)."""

        def cost(tile: Tile | None) -> float:
            again = sum(held.channels for held in self.regions if not held.aligned or held.layout.tile != tile)
            return again + assumed.OVERHANG_COST * self.overhang(tile) * self.channels

        return min((None, *(held.layout.tile for held in self.regions if held.aligned)), key=cost)

    def overhang(self, tile: Tile | None) -> float:
        """Rows that lie outside of the region, over those inside, for a region of the mean extent."""
        rows = inside = 1.0
        for extent, size in zip(self.mean_extent, tile or (1, 1), strict=True):
            rows, inside = rows * np.ceil(extent / size) * size, inside * extent
        return rows / inside - 1


def rows_in_plain_order(around: Surroundings) -> Layout:
    """Of what is gathered or reduced window by window."""
    return ROWS


def channels_first(around: Surroundings) -> Layout:
    """Of ONNX Runtime's own operators on maps."""
    return MAPS


def as_read(around: Surroundings) -> Layout:
    """Of an operator that goes cell by cell in whichever layout its input is."""
    return around.in_place


def rows_as_read(around: Surroundings) -> Layout:
    """Of an operator on rows, whatever their order."""
    return Layout(tile=around.in_place.tile)


def rows_shared(around: Surroundings) -> Layout:
    """Of a merge, whose inputs are brought to one order."""
    return Layout(tile=around.shared_tile())


@dataclass(frozen=True, slots=True)
class Transitions:
    """What the layouts around a node cost it, or spare it, beside its own work.

    Attributes:
        reads_maps: whether the region that it reads cell by cell is held as maps already.
        keeps_maps: whether nothing makes rows of the maps that it gives.
        reordered: channels of inputs whose rows are brought to another order.
        anew: channels of inputs that are read again from their cached map and their region, cell by cell.
        tile: of the output's rows.
    """

    reads_maps: bool = False
    keeps_maps: bool = False
    reordered: int = 0
    anew: int = 0
    tile: Tile | None = None


def transitions(around: Surroundings, layout: Layout, *, keeps_maps: bool) -> Transitions:
    """Of a node whose output is held in ``layout``."""
    if any(window.kernel > 1 or window.stride > 1 for window in around.windows):
        return Transitions(keeps_maps=keeps_maps)
    ordered = [held for held in around.regions if held.aligned and held.layout.tile != layout.tile]
    anew = [held for held in around.regions if not held.aligned]
    if layout.tile is not None:
        ordered, anew = [], [*anew, *ordered]
    return Transitions(
        reads_maps=around.reads[0] is not None and around.first.aligned and around.first.layout.maps and layout.maps,
        keeps_maps=keeps_maps,
        reordered=sum(held.channels for held in ordered),
        anew=sum(held.channels for held in anew),
        tile=layout.tile,
    )


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """Nodes that take the regions of a batch a few at a time, one after the other (``rewriting/microbatch.py``).

    Attributes:
        nodes: names, from the depthwise convolution that gathers its regions to the last whose output is held as maps.
        count: of micro-batches of a batch.
    """

    nodes: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Layouts:
    """All that emission does not follow from the plan: it decides nothing.

    Attributes:
        lowerings: name of the lowering by node name, of incremental nodes.
        values: layout of their outputs, by value name.
        transitions: by node name.
        microbatches: by the name of their first node.
        blocked: names of regions that are pasted into maps in ONNX Runtime's blocked layout.
    """

    lowerings: Mapping[str, str]
    values: Mapping[str, Layout]
    transitions: Mapping[str, Transitions] = field(default_factory=dict)
    microbatches: Mapping[str, MicroBatches] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
