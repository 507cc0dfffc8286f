"""Patch positions: grids over the image, validation of the caller's positions, batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.errors import UsageError

Box = tuple[int, int, int, int]
Stride = int | tuple[int, int]
Edges = Literal["valid", "inward", "cut", "centred"]
EDGES: tuple[Edges, ...] = ("valid", "inward", "cut", "centred")


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Top-left corners of the patch on a regular grid.

    Attributes:
        ys: int64 [rows], pixels.
        xs: int64 [cols], pixels.
    """

    ys: IntArray
    xs: IntArray

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.ys), len(self.xs)

    @property
    def positions(self) -> IntArray:
        """All positions, int64 [rows * cols, 2], (y, x), row by row."""
        return np.stack(np.meshgrid(self.ys, self.xs, indexing="ij"), axis=-1).reshape(-1, 2)


def make_grid(
    image: tuple[int, int], patch: tuple[int, int], stride: Stride, region: Box | None = None, edges: Edges = "valid"
) -> Grid:
    """The grid of positions at ``stride``, over the image or over ``region``.

    Args:
        image: (height, width) in pixels.
        patch: (height, width) in pixels.
        stride: pixels between neighbouring positions, a number or (y, x).
        region: (top, left, bottom, right) in pixels, half-open; the grid is laid as if it were the image, but patches that
            extend beyond it cover pixels outside it.
        edges: how the grid ends where the last patch does not meet the edge. "valid": only patches wholly inside,
            floor((size - patch) / stride) + 1 along an axis. "inward": another patch, moved inward to the edge. "cut": another
            patch, cut off at the edge of the image, unless it would lie wholly beyond the edge. "centred": patches centred on
            every ``stride``-th pixel, from the first on, cut off at the edges.

    Raises:
        UsageError: stride below 1, unknown ``edges``, or a region that is empty, extends beyond the image or holds no patch.
    """
    strides = stride_pair(stride)
    if region is not None and (len(region) != 4 or not all(isinstance(edge, int | np.integer) for edge in region)):
        raise UsageError(f"region is {region!r}, expected whole numbers (top, left, bottom, right)")
    if edges not in EDGES:
        raise UsageError(f"edges is {edges!r}, expected one of {', '.join(EDGES)}")
    top, left, bottom, right = region if region is not None else (0, 0, *image)
    if not (0 <= top < bottom <= image[0] and 0 <= left < right <= image[1]):
        raise UsageError(
            f"region {[top, left, bottom, right]} is no (top, left, bottom, right) box inside the image {list(image)}"
        )
    if edges in ("valid", "inward") and (bottom - top < patch[0] or right - left < patch[1]):
        raise UsageError(f"region {[top, left, bottom, right]} is smaller than the patch {list(patch)}; widen it")
    ys, xs = (
        _corners(first, stop, side, step, edges)
        for first, stop, side, step in zip((top, left), (bottom, right), patch, strides, strict=True)
    )
    return Grid(ys, xs)


def stride_pair(stride: Stride) -> tuple[int, int]:
    """``stride`` as (y, x).

    Raises:
        UsageError: not one or two whole numbers above 0.
    """
    numbers = (stride, stride) if isinstance(stride, int | np.integer) else tuple(np.ravel(np.asarray(stride)).tolist())
    if len(numbers) != 2 or not all(isinstance(number, int | np.integer) for number in numbers):
        raise UsageError(f"stride is {stride!r}, expected a whole number of pixels, or one for y and one for x")
    if min(numbers) < 1:
        raise UsageError(f"stride is {stride}, expected at least 1 pixel")
    return int(numbers[0]), int(numbers[1])


def _corners(first: int, stop: int, side: int, step: int, edges: Edges) -> IntArray:
    """Coordinates of the patches' first pixels along an axis, in a region from ``first`` to ``stop``."""
    if edges == "centred":
        return np.arange(first, stop, step) - side // 2
    whole = np.arange(first, stop - side + 1, step)
    covered = whole[-1] + side if len(whole) else first
    if covered >= stop or edges == "valid":
        return whole
    another = stop - side if edges == "inward" else first + len(whole) * step
    return np.append(whole, another) if another < stop else whole  # steps larger than the patch may lead beyond the end


def check_positions(positions: npt.ArrayLike, image: tuple[int, int], patch: tuple[int, int]) -> IntArray:
    """Validates that the patch overlaps the image at all ``positions``, and returns them as int64 [N, 2].

    Raises:
        UsageError: not a list of whole numbers (y, x), or the patch lies outside the image; the message gives the first such.
    """
    try:
        array = np.asarray(positions)
    except ValueError as error:
        raise UsageError(f"positions are no table of numbers ({error}), expected whole numbers [N, 2] as (y, x)") from error
    if array.size == 0:
        return np.zeros((0, 2), np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise UsageError(f"positions are {array.dtype} of shape {list(array.shape)}, expected whole numbers [N, 2] as (y, x)")
    least, most = (1 - patch[0], 1 - patch[1]), (image[0] - 1, image[1] - 1)
    outside = np.flatnonzero(((array < least) | (array > most)).any(axis=1))
    if outside.size:
        first = int(outside[0])
        raise UsageError(
            f"position {first} is {array[first].tolist()}: the patch {list(patch)} then covers nothing of {list(image)}; "
            f"expected (y, x) between {list(least)} and {list(most)}"
        )
    return array.astype(np.int64)


def batches(count: int, size: int) -> Iterator[slice]:
    """Splits ``count`` items into consecutive slices of at most ``size``, of lengths as equal as possible."""
    number = -(-count // size)
    bounds = np.linspace(0, count, number + 1).astype(int)
    return (slice(int(a), int(b)) for a, b in pairwise(bounds))
