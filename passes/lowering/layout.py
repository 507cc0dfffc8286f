"""Memory layouts of regions, and the facts that the choice of a layout depends on.

A region is held either as rows (channels last, one row per cell, in row-major or tile order) or as maps (NCHW, which ONNX
Runtime's convolutions and pools take). The layout of each value is chosen before emission (``choosing/layouts.py``): each
lowering maps the layouts of its inputs to that of its output.
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
"""(height, width) in output cells."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The memory layout of a value's region.

    Attributes:
        maps: whether it is NCHW, [batch, C, h, w]; else it is rows, [rows, C].
        tile: (height, width) of the tiles that order the rows; None is row-major, region by region: [batch * h * w, C].
    """

    maps: bool = False
    tile: Tile | None = None

    def __str__(self) -> str:
        """The text of the report."""
        if self.maps:
            return "channels first"
        return f"rows by tiles of {self.tile[0]}x{self.tile[1]}" if self.tile is not None else "rows"


ROWS, MAPS = Layout(), Layout(maps=True)


@dataclass(frozen=True, slots=True)
class Held:
    """An input region of a node.

    Attributes:
        layout: its memory layout.
        channels: C.
        aligned: whether it covers the same cells as the node's output region, at every patch position.
    """

    layout: Layout
    channels: int
    aligned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """An incremental node and its input regions: all that the layout of its output depends on.

    Attributes:
        node: of the source graph.
        reads: per input of the node, its region, or None for a constant.
        windows: (y, x) windows of a sliding-window node, identity windows otherwise.
        region: of the first input that has one.
        last: whether channels are last in the source node's output.
        channels: C of the output.
        mean_extent: (height, width) of the output region, the mean over all patch positions.
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
        """The first input: the data input of every operator except merges."""
        first = self.reads[0]
        assert first is not None
        return first

    @property
    def regions(self) -> list[Held]:
        """The inputs that are regions, in order."""
        return [held for held in self.reads if held is not None]

    @property
    def in_place(self) -> Layout:
        """Layout in which a pointwise node sees its first input: as held, or row-major rows where that must be gathered first."""
        return self.first.layout if self.first.aligned else ROWS

    @property
    def cell_by_cell(self) -> bool:
        """Whether each output cell reads the one input cell at the same index of an aligned region (1x1 window, stride 1)."""
        return self.first.aligned and all(window.kernel == window.stride == 1 for window in self.windows)

    @property
    def mean_reads(self) -> tuple[float, float]:
        """Extent along y and x of the receptive field of an output region of the mean extent."""
        y, x = (
            (extent - 1) * window.stride + window.reach for extent, window in zip(self.mean_extent, self.windows, strict=True)
        )
        return y, x

    def attribute(self, name: str, default: object) -> object:
        return self.node.attrs.get(name, default)

    def shared_tile(self) -> Tile | None:
        """The cheapest row order for a merge: it weighs input channels to gather again against rows that overhang the region.

        Overhanging rows count more, since all later nodes compute them, too.
        """

        def cost(tile: Tile | None) -> float:
            gathered = sum(held.channels for held in self.regions if not held.aligned or held.layout.tile != tile)
            return gathered + assumed.OVERHANG_COST * self.overhang(tile) * self.channels

        return min((None, *(held.layout.tile for held in self.regions if held.aligned)), key=cost)

    def overhang(self, tile: Tile | None) -> float:
        """Rows of tiles outside of the region over rows inside, for a region of the mean extent."""
        rows = inside = 1.0
        for extent, size in zip(self.mean_extent, tile or (1, 1), strict=True):
            rows, inside = rows * np.ceil(extent / size) * size, inside * extent
        return rows / inside - 1


def rows_in_plain_order(around: Surroundings) -> Layout:
    """Row-major rows: for lowerings that gather or reduce window by window."""
    return ROWS


def channels_first(around: Surroundings) -> Layout:
    """NCHW: for lowerings that run ONNX Runtime's own operator on maps."""
    return MAPS


def as_read(around: Surroundings) -> Layout:
    """The layout of the first input: for pointwise operators, which run in any layout."""
    return around.in_place


def rows_as_read(around: Surroundings) -> Layout:
    """Rows in the row order of the first input: for operators on rows that run in any order."""
    return Layout(tile=around.in_place.tile)


def rows_shared(around: Surroundings) -> Layout:
    """Rows in the order that all inputs of a merge are brought to."""
    return Layout(tile=around.shared_tile())


def cells_gathered(around: Surroundings, layout: Layout) -> float:
    """Cells gathered per position where a lowering reads regions with the cached map around them: a receptive field as one box.

    Inputs that are held on the output's cells, in its row order, are taken as they are: 0 if all are.
    """
    as_held = all(held.aligned and layout.tile in (None, held.layout.tile) for held in around.regions)
    if as_held and all(window.kernel == window.stride == 1 for window in around.windows):
        return 0.0
    if layout.tile is None:
        return float(np.prod(around.mean_reads))
    sides = zip(around.mean_extent, around.windows, layout.tile, strict=True)
    return float(np.prod([np.ceil(extent / size) * window.input_extent(size) for extent, window, size in sides]))


def windows_gathered(around: Surroundings, layout: Layout) -> float:
    """Cells gathered per position where a lowering reads the window of every output cell (im2col)."""
    if around.cell_by_cell:
        return 0.0
    return float(np.prod([extent * window.kernel for extent, window in zip(around.mean_extent, around.windows, strict=True)]))


def none_gathered(around: Surroundings, layout: Layout) -> float:
    """For lowerings that read no cached map around a region, or that read all of it."""
    return 0.0


@dataclass(frozen=True, slots=True)
class Transitions:
    """How a node reads and writes its regions beyond its own work: layout conversions, and what joins cached cells to regions.

    Attributes:
        reads_maps: whether its aligned input region is held as maps already, so that no transposition is needed.
        keeps_maps: whether no reader converts its maps to rows.
        reordered: channels of inputs whose rows are permuted to another row order.
        anew: channels of inputs that are gathered again, on the output's box, from their cached map and their region.
        tile: that orders the output's rows.
        copies: whether only the cached cells that a batch reads are copied and joined to the region, not the whole cached map.
    """

    reads_maps: bool = False
    keeps_maps: bool = False
    reordered: int = 0
    anew: int = 0
    tile: Tile | None = None
    copies: bool = False


def transitions(around: Surroundings, layout: Layout, *, keeps_maps: bool, copies: bool) -> Transitions:
    """The transitions of a node whose output is held in ``layout``."""
    if any(window.kernel > 1 or window.stride > 1 for window in around.windows):
        return Transitions(keeps_maps=keeps_maps, copies=copies)
    permuted = [held for held in around.regions if held.aligned and held.layout.tile != layout.tile]
    gathered = [held for held in around.regions if not held.aligned]
    if layout.tile is not None:
        permuted, gathered = [], [*gathered, *permuted]
    return Transitions(
        reads_maps=around.reads[0] is not None and around.first.aligned and around.first.layout.maps and layout.maps,
        keeps_maps=keeps_maps,
        reordered=sum(held.channels for held in permuted),
        anew=sum(held.channels for held in gathered),
        tile=layout.tile,
        copies=copies,
    )


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """A chain of nodes that runs once per micro-batch (``rewriting/microbatch.py``).

    Attributes:
        nodes: names, from the depthwise convolution that gathers its regions to the last node whose output is held as maps.
        count: of micro-batches in a batch.
    """

    nodes: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Layouts:
    """The decisions beyond the plan that emission needs.

    Attributes:
        lowerings: name of the lowering of each incremental node, by node name.
        values: layout of each incremental node's output, by value name.
        transitions: layout conversions and the joining of cached cells, by the name of each incremental node.
        microbatches: chains of nodes, by the name of their first node.
        blocked: names of values whose region is pasted into a map in ONNX Runtime's blocked layout (NCHWc).
    """

    lowerings: Mapping[str, str]
    values: Mapping[str, Layout]
    transitions: Mapping[str, Transitions]
    microbatches: Mapping[str, MicroBatches] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
