"""Aggregation: from scores per position to a map at image size."""

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
    """Upsamples ``scores`` [rows, cols] of the patch at (ys[row], xs[col]) to image size, float32 [H, W].

    Args:
        method: "linear" interpolates between the patches' centres, and is constant beyond the outermost; "nearest" takes the
            nearest centre; "mean" averages all patches that cover a pixel, NaN where none does.

    Raises:
        UsageError: unknown method.
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
        rows, cols = (np.abs(axis[:, None] - middles).argmin(axis=1) for axis, middles in zip(pixels, centres, strict=True))
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
    """Sums over the patches that cover each pixel: their weighted scores, float64 [..., H, W], and their weights, [H, W].

    Scores of several maps are [..., rows, cols]. ``weights`` [h, w] weighs the pixels of a patch; None weighs all as 1.
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
