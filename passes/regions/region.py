"""The region of a value, which is the box of its map that a patch can change, and helpers of region rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.values import known_sizes
from kcompiler.passes.regions.geometry import Spans


class NoRule(Exception):
    """The node cannot be made incremental. The message is the reason in the report."""


@dataclass(frozen=True, slots=True)
class Region:
    """The box of a map that a patch can change, for every patch origin along each axis.

    Attributes:
        channels: of the map, which is [N, channels, y.size, x.size], or if ``last`` [N, y.size, x.size, channels].
        y, x: spans of cells.
        last: whether channels are the last axis of the value. The layout of updated regions does not depend on it.
    """

    channels: int
    y: Spans
    x: Spans
    last: bool = False

    @property
    def channel_axis(self) -> int:
        return 3 if self.last else 1

    @property
    def cell_axes(self) -> tuple[int, int]:
        """The axes of the value along y and x."""
        return (1, 2) if self.last else (2, 3)

    @property
    def map(self) -> tuple[int, int]:
        """(height, width) of the whole map."""
        return self.y.size, self.x.size

    @property
    def mean_extent(self) -> tuple[float, float]:
        """(height, width) of the region, the mean over all positions of patches that lie inside the image."""
        y, x = (float(spans.lengths[spans.whole].mean()) for spans in (self.y, self.x))
        return y, x

    def union(self, other: Region) -> Region:
        return replace(self, y=self.y.union(other.y), x=self.x.union(other.x))

    def capped(self, share: float) -> Region:
        """The region capped to ``share`` of the map's height and of its width, rounded, at least one cell each."""
        y, x = (spans.capped(max(1, round(share * spans.size))) for spans in (self.y, self.x))
        return replace(self, y=y, x=x)


def map_of(node: gs.Node, value: gs.Tensor, *, last: bool = False) -> tuple[int, int, int]:
    """(channels, height, width) of an input or output of ``node``.

    Raises:
        NoRule: it is not a map of known size.
    """
    shape = value.shape
    if shape is None or len(shape) != 4 or known_sizes(shape) is None:
        raise NoRule(f"{node.op}: {value.name} is no map of known size (shape {shape})")
    return (shape[3], shape[1], shape[2]) if last else (shape[1], shape[2], shape[3])


def only(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The region of the first input, where all other inputs are constants.

    Raises:
        NoRule: another input depends on the image, or is not constant.
    """
    first, *others = regions
    if first is None or any(region is not None for region in others):
        raise NoRule(f"{node.op} with weights or parameters computed from the image")
    if any(not isinstance(value, gs.Constant) and not value.is_empty() for value in node.inputs[1:]):
        raise NoRule(f"{node.op} with weights or parameters that are not constant")
    return first


def numbers(node: gs.Node, place: int, attribute: str = "") -> list[int] | None:
    """Integers of the constant input ``place`` or, in older opsets, of the ``attribute``; None if neither is present."""
    if len(node.inputs) > place and not node.inputs[place].is_empty():
        return [int(number) for number in np.asarray(node.inputs[place].values).ravel()]
    values = node.attrs.get(attribute)
    return None if values is None else [int(number) for number in values]
