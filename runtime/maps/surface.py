"""The surface of a map over a picture: bilinear between the patches' centres, and only where a patch reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.arrays import BoolArray, DoubleArray, FloatArray, IntArray
from kcompiler.runtime.inputs.view import View


def over_picture(
    values: FloatArray, ys: IntArray, xs: IntArray, patch: tuple[int, int], view: View, size: tuple[int, int]
) -> FloatArray:
    """``values`` [rows, cols] of the patch at (ys[row], xs[col]) as a surface over the whole picture, float32 [size].

    Args:
        values: NaN or infinite where there is nothing to draw; their neighbours' surface ends where the neighbours' patches do.
        ys, xs: corners of the patches, in the model's pixels.
        patch: (height, width) in the model's pixels.
        view: where the model's pixels lie in the picture.
        size: (height, width) at which the picture is drawn.

    Returns:
        NaN where no patch with a finite value reaches.
    """
    finite = np.isfinite(values)
    known, weights = np.where(finite, values, 0).astype(np.float32), finite.astype(np.float32)
    axes = [(_model_coordinates(axis, view, size[axis]), corners, patch[axis]) for axis, corners in enumerate((ys, xs))]
    down, across = (_Between.of(at, (corners + side / 2).astype(np.float64)) for at, corners, side in axes)
    surface = across.along(down.along(known).T).T
    if not finite.all():
        with np.errstate(divide="ignore", invalid="ignore"):
            surface = surface / across.along(down.along(weights).T).T
    rows, cols = (_covering(at, corners, side).astype(np.float32) for at, corners, side in axes)
    surface[rows @ weights @ cols.T < 0.5] = np.nan
    return surface


def reached(ys: IntArray, xs: IntArray, patch: tuple[int, int], image: tuple[int, int]) -> BoolArray:
    """Bool [H, W]: the model's pixels that some patch covers."""
    down, across = (
        np.any(_covering(np.arange(size) + np.float64(0.5), corners, side), axis=1, keepdims=True)
        for size, corners, side in zip(image, (ys, xs), patch, strict=True)
    )
    both: BoolArray = down & across.T
    return both


def _model_coordinates(axis: int, view: View, count: int) -> DoubleArray:
    """The middles of ``count`` pixels along an axis of the drawn picture, in the model's pixels."""
    in_picture = (np.arange(count) + 0.5) * view.picture[axis] / count
    coordinates: DoubleArray = (in_picture - view.offset[axis]) / view.scale[axis]
    return coordinates


@dataclass(frozen=True, slots=True, eq=False)
class _Between:
    """Linear interpolation at n places between centres; constant beyond the outermost.

    Attributes:
        before, after: int64 [n], the centres on both sides.
        share: float32 [n], of the one after.
    """

    before: IntArray
    after: IntArray
    share: FloatArray

    @classmethod
    def of(cls, at: DoubleArray, centres: DoubleArray) -> _Between:
        """For places ``at`` [n]."""
        if len(centres) == 1:
            only = np.zeros(len(at), np.int64)
            return cls(only, only, np.zeros(len(at), np.float32))
        after = np.clip(np.searchsorted(centres, at), 1, len(centres) - 1)
        share = np.clip((at - centres[after - 1]) / (centres[after] - centres[after - 1]), 0, 1)
        return cls(after - 1, after, share.astype(np.float32))

    def along(self, values: FloatArray) -> FloatArray:
        """``values`` [centres, m] at the places, [n, m]. Not by a matrix product: its rounding depends on BLAS's threads."""
        share = self.share[:, None]
        return (np.float32(1) - share) * values[self.before] + share * values[self.after]


def _covering(at: DoubleArray, corners: IntArray, side: int) -> BoolArray:
    """Bool [n, corners]: whether the patch at each corner covers the coordinates ``at`` [n]."""
    return (at[:, None] >= corners) & (at[:, None] < corners + side)
