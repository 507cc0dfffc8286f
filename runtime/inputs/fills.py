"""Fills, which cover the image: a colour, a picture, or a patch for each position.

The patch shows the part of the picture at its position. Patches for each position are pasted into a picture, too, as many as do
not overlap, so both kinds of fill run through the same models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Protocol, runtime_checkable

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.errors import UsageError

Size = tuple[int, int]


@runtime_checkable
class PictureFill(Protocol):
    """Makes a picture that covers the image at all positions."""

    def picture(self, image: FloatArray) -> FloatArray:
        """The picture for an image, both float32 [C, H, W] in model units."""


@runtime_checkable
class PatchFill(Protocol):
    """Makes a patch for each position."""

    @property
    def samples(self) -> int:
        """Number of samples per position; outputs are averaged over them."""

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        """Patches float32 [N, C, h, w] for positions [N, 2], at which the patch lies wholly in the image [C, H, W]."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Each channel's mean over the image."""

    def picture(self, image: FloatArray) -> FloatArray:
        return np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape).copy()


@dataclass(frozen=True, slots=True)
class Blur:
    """The image itself, blurred by a Gaussian of ``sigma`` pixels."""

    sigma: float = 8.0

    def picture(self, image: FloatArray) -> FloatArray:
        from scipy.ndimage import gaussian_filter  # takes a third of a second to import

        blurred: FloatArray = gaussian_filter(image, (0, self.sigma, self.sigma), mode="nearest")
        return blurred


@dataclass(frozen=True, slots=True)
class Noise:
    """Normal noise with each channel's mean and standard deviation; deterministic for a seed."""

    seed: int = 0

    def picture(self, image: FloatArray) -> FloatArray:
        noise = np.random.default_rng(self.seed).standard_normal(image.shape)
        mean, deviation = (statistic(axis=(1, 2), keepdims=True) for statistic in (image.mean, image.std))
        picture: FloatArray = (mean + deviation * noise).astype(np.float32)
        return picture


@dataclass(frozen=True, slots=True)
class PatchMean:
    """The mean of the covered pixels over all channels, as MONAI's "mean_patch"."""

    samples: int = 1

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        covered = cut_out(image, positions, patch)
        return np.broadcast_to(covered.mean(axis=(1, 2, 3), keepdims=True), covered.shape).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Veil:
    """The covered pixels times ``weights``, float32 [h, w]: 0 hides a pixel, 1 shows it."""

    weights: FloatArray
    samples: int = 1

    def __repr__(self) -> str:
        """Identifies all weights by a digest; numpy's repr abbreviates them."""
        return f"Veil({sha256(np.ascontiguousarray(self.weights).data).hexdigest()[:16]})"

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        return cut_out(image, positions, patch) * self.weights


@dataclass(frozen=True, slots=True)
class Marginal:
    """Prediction difference by marginal sampling: patches of the image from random positions, drawn per sample and position."""

    samples: int = 8
    seed: int = 0

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        rng = np.random.default_rng([self.seed, sample])
        last = [size - side + 1 for size, side in zip(image.shape[1:], patch, strict=True)]
        origins = rng.integers(0, last, size=(last[0] * last[1], 2))
        return cut_out(image, origins[positions[:, 0] * last[1] + positions[:, 1]], patch)


@dataclass(frozen=True, slots=True)
class Conditional:
    """Prediction difference by conditional sampling: random patches, given the pixels around them.

    Pixels are modelled as a Gaussian random field whose correlation falls exponentially along y and along x, at the rate between
    neighbouring pixels of the image. Samples are conditioned on ``ring`` pixels around the patch (along a line only the nearest
    matters, since such lines are Markov chains). The covariance is the Kronecker product of those along y and x, so no matrix is
    larger than a line of the window squared.

    Source: Zintgraf, Cohen, Adel, Welling, ICLR 2017, who learn the covariance from other images.
    """

    samples: int = 8
    seed: int = 0
    ring: int = 3

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        mean = image.mean(axis=(1, 2), dtype=np.float64)
        centred = image - mean[:, None, None]
        channels = np.cov(centred.reshape(len(centred), -1)).reshape(len(centred), len(centred))
        mixing = np.linalg.cholesky(channels + 1e-9 * max(float(np.trace(channels)), 1e-9) * np.eye(len(centred)))
        steps = _correlations(centred)
        result = np.empty((len(positions), len(image), *patch), np.float32)
        for number, (y, x) in enumerate(positions.tolist()):
            top, left = min(self.ring, y), min(self.ring, x)
            bottom = min(self.ring, image.shape[1] - y - patch[0])
            right = min(self.ring, image.shape[2] - x - patch[1])
            around = centred[:, y - top : y + patch[0] + bottom, x - left : x + patch[1] + right].copy()
            around[:, top : top + patch[0], left : left + patch[1]] = 0.0
            rows, cols = _hidden(patch[0], top, bottom, steps[0]), _hidden(patch[1], left, right, steps[1])
            rng = np.random.default_rng([self.seed, sample, y, x])
            drawn = np.tensordot(mixing, rng.standard_normal((len(image), *patch)), axes=1)
            result[number] = mean[:, None, None] + rows.root @ drawn @ cols.root.T - rows.weights @ around @ cols.weights.T
        return result


NAMED: dict[str, PictureFill | PatchFill] = {
    "mean": Mean(),
    "blur": Blur(),
    "noise": Noise(),
    "patch-mean": PatchMean(),
    "marginal": Marginal(),
    "conditional": Conditional(),
}
"""Fills by name."""


def named(name: str) -> PictureFill | PatchFill:
    """The fill called ``name``.

    Raises:
        UsageError: no fill has that name.
    """
    if name not in NAMED:
        raise UsageError(f"fill {name!r} is not known, expected numbers or one of {', '.join(NAMED)}")
    return NAMED[name]


def apart(positions: IntArray, patch: Size) -> Iterator[IntArray]:
    """Splits positions, int64 [N, 2], into groups without overlapping patches; yields the indices of each group."""
    rows, row_number = np.unique(positions[:, 0], return_inverse=True)
    cols, col_number = np.unique(positions[:, 1], return_inverse=True)
    row_group, col_group = _lines_apart(rows, patch[0])[row_number], _lines_apart(cols, patch[1])[col_number]
    repeats = _repeats(positions)
    keys = np.stack([repeats, row_group, col_group], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    bounds = np.flatnonzero(np.diff(group.ravel()[order])) + 1
    yield from np.split(order, bounds)


def _lines_apart(lines: IntArray, side: int) -> IntArray:
    """Group numbers, int64 [lines], of ascending coordinates; those in a group are at least ``side`` apart."""
    groups, last = np.empty(len(lines), np.int64), list[int]()
    for number, line in enumerate(lines.tolist()):
        group = next((g for g, end in enumerate(last) if line >= end + side), len(last))
        if group == len(last):
            last.append(line)
        last[group] = line
        groups[number] = group
    return groups


def _repeats(positions: IntArray) -> IntArray:
    """How often each position occurs before its index, int64 [N]: equal positions overlap and need different groups."""
    _, same = np.unique(positions, axis=0, return_inverse=True)
    order = np.argsort(same.ravel(), kind="stable")
    sorted_same = same.ravel()[order]
    starts = np.r_[0, np.flatnonzero(np.diff(sorted_same)) + 1]
    repeats = np.empty(len(positions), np.int64)
    repeats[order] = np.arange(len(positions)) - np.repeat(starts, np.diff(np.r_[starts, len(positions)]))
    return repeats


def collage(image: FloatArray, patches: FloatArray, positions: IntArray) -> FloatArray:
    """Pastes patches [N, C, h, w] into a copy of the image [C, H, W] at positions [N, 2]."""
    picture = image.copy()
    height, width = patches.shape[2:]
    for patch, (y, x) in zip(patches, positions.tolist(), strict=True):
        picture[:, y : y + height, x : x + width] = patch
    return picture


def cut_out(image: FloatArray, positions: IntArray, patch: Size) -> FloatArray:
    """The pixels under the patch at each position, [N, C, h, w]."""
    windows = np.lib.stride_tricks.sliding_window_view(image, patch, axis=(1, 2))
    return np.ascontiguousarray(windows[:, positions[:, 0], positions[:, 1]].swapaxes(0, 1))


def _correlations(centred: DoubleArray) -> tuple[float, float]:
    """Correlation between neighbouring pixels, along y and along x."""
    power = float((centred**2).mean())
    if power == 0:
        return 0.0, 0.0
    along_y = float((centred[:, 1:] * centred[:, :-1]).mean()) / power if centred.shape[1] > 1 else 0.0
    along_x = float((centred[:, :, 1:] * centred[:, :, :-1]).mean()) / power if centred.shape[2] > 1 else 0.0
    # Rounded, so that the cache of _hidden is hit.
    return round(min(max(along_y, 0.0), 0.999), 3), round(min(max(along_x, 0.0), 0.999), 3)


@dataclass(frozen=True, slots=True)
class _Hidden:
    """Conditional distribution of the hidden pixels of a line, given the other pixels: a factor of the whole patch.

    Attributes:
        root: [hidden, hidden], Cholesky factor of their conditional covariance.
        weights: [hidden, line]; minus these times the line, with its hidden pixels set to zero, is their conditional mean.
    """

    root: DoubleArray
    weights: DoubleArray


@lru_cache(maxsize=256)
def _hidden(count: int, before: int, after: int, step: float) -> _Hidden:
    """For ``count`` hidden pixels after ``before`` and before ``after`` others; neighbours have the correlation ``step``.

    The precision matrix (inverse covariance) of the window is the Kronecker product of those along y and x; along a line it is
    tridiagonal.
    """
    length = before + count + after
    precision = np.diag(np.full(length, 1 + step * step)) - step * (np.eye(length, k=1) + np.eye(length, k=-1))
    precision[0, 0] = precision[-1, -1] = 1.0 if length > 1 else 1 - step * step
    precision /= 1 - step * step
    hidden = slice(before, before + count)
    covariance = np.asarray(np.linalg.inv(precision[hidden, hidden]), np.float64)
    return _Hidden(np.asarray(np.linalg.cholesky(covariance), np.float64), covariance @ precision[hidden])
