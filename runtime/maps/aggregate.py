"""From scores of patches to a map of pixels."""

from __future__ import annotations

from typing import Literal

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.errors import UsageError

Method = Literal["linear", "nearest", "mean"]
METHODS: tuple[Method, ...] = ("linear", "nearest", "mean")


def to_pixels(
    scores: FloatArray, ys: IntArray, xs: IntArray, patch: tuple[int, int], image: tuple[int, int], method: Method
) -> FloatArray:
    """``scores`` [rows, cols] of patches at (ys[row], xs[col]) at image size, [H, W].

    Args:
        method: "linear" between the patches' centres, constant beyond the outermost; "nearest" centre; "mean" of all patches
            that cover a pixel, NaN where none does.

    Raises:
        UsageError: another method.
    """
    if method not in METHODS:
        raise UsageError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if method == "mean":
        total, weight = covering(scores, ys, xs, patch, image)
        with np.errstate(invalid="ignore"):
            return (total / weight).astype(np.float32)
    centres = [corners + (side - 1) / 2 for corners, side in zip((ys, xs), patch, strict=True)]
    pixels = [np.arange(size) for size in image]
    if method == "nearest":
        rows, cols = (np.abs(points[:, None] - middle).argmin(axis=1) for points, middle in zip(pixels, centres, strict=True))
        return scores[np.ix_(rows, cols)]
    along_x = np.stack([np.interp(pixels[1], centres[1], row) for row in scores])
    columns = [np.interp(pixels[0], centres[0], column) for column in along_x.T]
    return np.stack(columns, axis=1).astype(np.float32)


def covering(
    scores: FloatArray,
    ys: IntArray,
    xs: IntArray,
    patch: tuple[int, int],
    image: tuple[int, int],
    weights: DoubleArray | None = None,
) -> tuple[DoubleArray, DoubleArray]:
    """Of each pixel, the sum of the scores of all patches that cover it, and how many do: float64 [..., H, W] and [H, W].

    Scores are [..., rows, cols]: of several maps at once. With ``weights`` [h, w] a patch counts as much as they say at a pixel.
    """
    weights = np.ones(patch) if weights is None else weights
    scores = scores.astype(np.float64)
    total, weight = np.zeros((*scores.shape[:-2], *image)), np.zeros(image)
    for row, y in enumerate(ys.tolist()):
        for col, x in enumerate(xs.tolist()):
            top, left = max(y, 0), max(x, 0)
            bottom, right = min(y + patch[0], image[0]), min(x + patch[1], image[1])
            part = weights[top - y : bottom - y, left - x : right - x]
            total[..., top:bottom, left:right] += part * scores[..., row, col, None, None]
            weight[top:bottom, left:right] += part
    return total, weight
