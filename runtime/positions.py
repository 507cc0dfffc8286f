"""Patch positions: grids over the image, lists given by the caller, batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.errors import UsageError

IntArray = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]


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
        """int64 [rows * cols, 2], (y, x), row by row."""
        return np.stack(np.meshgrid(self.ys, self.xs, indexing="ij"), axis=-1).reshape(-1, 2)


def make_grid(image: tuple[int, int], patch: tuple[int, int], stride: int, region: Box | None = None) -> Grid:
    """Every valid position at ``stride``: floor((size - patch) / stride) + 1 a side, over the image or over ``region``.

    Args:
        image: (height, width) in pixels.
        patch: (height, width) in pixels.
        stride: pixels between neighbouring positions.
        region: (top, left, bottom, right) in pixels, half-open: only patches that lie wholly inside it.

    Raises:
        UsageError: stride below 1, or a region that is empty, leaves the image or holds no patch.
    """
    if not isinstance(stride, int | np.integer):
        raise UsageError(f"stride is {stride!r}, expected a whole number of pixels")
    if region is not None and (len(region) != 4 or not all(isinstance(edge, int | np.integer) for edge in region)):
        raise UsageError(f"region is {region!r}, expected whole numbers (top, left, bottom, right)")
    if stride < 1:
        raise UsageError(f"stride is {stride}, expected at least 1 pixel")
    top, left, bottom, right = region if region is not None else (0, 0, *image)
    if not (0 <= top < bottom <= image[0] and 0 <= left < right <= image[1]):
        raise UsageError(
            f"region {[top, left, bottom, right]} is no (top, left, bottom, right) box inside the image {list(image)}"
        )
    if bottom - top < patch[0] or right - left < patch[1]:
        raise UsageError(f"region {[top, left, bottom, right]} is smaller than the patch {list(patch)}; widen it")
    return Grid(np.arange(top, bottom - patch[0] + 1, stride), np.arange(left, right - patch[1] + 1, stride))


def check_positions(positions: npt.ArrayLike, image: tuple[int, int], patch: tuple[int, int]) -> IntArray:
    """``positions`` as int64 [N, 2], all of them with the patch inside the image.

    Raises:
        UsageError: not a list of (y, x) whole numbers, or one lies outside; the first such is named.
    """
    try:
        array = np.asarray(positions)
    except ValueError as error:
        raise UsageError(f"positions are no table of numbers ({error}), expected whole numbers [N, 2] as (y, x)") from error
    if array.size == 0:
        return np.zeros((0, 2), np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise UsageError(f"positions are {array.dtype} of shape {list(array.shape)}, expected whole numbers [N, 2] as (y, x)")
    last = (image[0] - patch[0], image[1] - patch[1])
    outside = np.flatnonzero(((array < 0) | (array > last)).any(axis=1))
    if outside.size:
        first = int(outside[0])
        raise UsageError(
            f"position {first} is {array[first].tolist()}: a patch {list(patch)} there leaves the image {list(image)}; "
            f"expected (y, x) between [0, 0] and {list(last)}"
        )
    return array.astype(np.int64)


def batches(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size``, of as equal lengths as possible."""
    number = -(-count // size)
    bounds = np.linspace(0, count, number + 1).astype(int)
    return (slice(int(a), int(b)) for a, b in pairwise(bounds))
