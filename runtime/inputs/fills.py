"""What covers the image: a colour, another picture, or patches made for each position.

A picture shows through the patch wherever it is. Patches differ from position to position; positions whose patches do not
overlap share one picture all the same, so both run through the same models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.ndimage import gaussian_filter

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.errors import UsageError

Size = tuple[int, int]


@runtime_checkable
class PictureFill(Protocol):
    """Makes one picture to cover the image with."""

    def picture(self, image: FloatArray) -> FloatArray:
        """float32 [C, H, W] for an image [C, H, W], in model units."""


@runtime_checkable
class PatchFill(Protocol):
    """Makes a patch for each position."""

    @property
    def samples(self) -> int:
        """How often: outputs are averaged over them."""

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        """float32 [N, C, h, w] for positions [N, 2], all of them with the whole patch in the image [C, H, W]."""


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
        blurred: FloatArray = gaussian_filter(image, (0, self.sigma, self.sigma), mode="nearest")
        return blurred


@dataclass(frozen=True, slots=True)
class Noise:
    """Normal noise of each channel's mean and deviation, the same for the same seed."""

    seed: int = 0

    def picture(self, image: FloatArray) -> FloatArray:
        noise = np.random.default_rng(self.seed).standard_normal(image.shape)
        mean, deviation = (of(axis=(1, 2), keepdims=True) for of in (image.mean, image.std))
        picture: FloatArray = (mean + deviation * noise).astype(np.float32)
        return picture


@dataclass(frozen=True, slots=True)
class PatchMean:
    """The mean of what is covered, of all channels together, as MONAI's "mean_patch"."""

    samples: int = 1

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        covered = cut_out(image, positions, patch)
        return np.broadcast_to(covered.mean(axis=(1, 2, 3), keepdims=True), covered.shape).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Veil:
    """What is covered, times ``weights`` float32 [h, w]: 0 hides, 1 shows."""

    weights: FloatArray
    samples: int = 1

    def __repr__(self) -> str:
        """Tells all weights, of which an array's own shows a few."""
        return f"Veil({sha256(np.ascontiguousarray(self.weights).data).hexdigest()[:16]})"

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        return cut_out(image, positions, patch) * self.weights


@dataclass(frozen=True, slots=True)
class Marginal:
    """Prediction difference by marginal sampling: what lies elsewhere in the image, drawn anew for each sample and position."""

    samples: int = 8
    seed: int = 0

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        rng = np.random.default_rng([self.seed, sample])
        last = [size - side + 1 for size, side in zip(image.shape[1:], patch, strict=True)]
        places = rng.integers(0, last, size=(last[0] * last[1], 2))
        return cut_out(image, places[positions[:, 0] * last[1] + positions[:, 1]], patch)


@dataclass(frozen=True, slots=True)
class Conditional:
    """Prediction difference by conditional sampling: patches as likely as not, given the pixels around them.

    Pixels are taken to be normal, their correlation to fall exponentially along y and x as it does in the image from pixel to
    pixel. ``ring`` pixels around the patch are conditioned on (of which the nearest tell all: such lines are Markov chains).
    Covariances along y and x are factors of the whole, so that nothing is larger than a line of the window by itself.

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
            known = centred[:, y - top : y + patch[0] + bottom, x - left : x + patch[1] + right].copy()
            known[:, top : top + patch[0], left : left + patch[1]] = 0.0
            rows, cols = _hidden(patch[0], top, bottom, steps[0]), _hidden(patch[1], left, right, steps[1])
            rng = np.random.default_rng([self.seed, sample, y, x])
            drawn = np.tensordot(mixing, rng.standard_normal((len(image), *patch)), axes=1)
            result[number] = mean[:, None, None] + rows.root @ drawn @ cols.root.T - rows.weights @ known @ cols.weights.T
        return result


NAMED: dict[str, PictureFill | PatchFill] = {
    "mean": Mean(),
    "blur": Blur(),
    "noise": Noise(),
    "patch-mean": PatchMean(),
    "marginal": Marginal(),
    "conditional": Conditional(),
}
"""Fills by the names that may stand for them."""


def named(name: str) -> PictureFill | PatchFill:
    """The fill called ``name``.

    Raises:
        UsageError: there is none.
    """
    if name not in NAMED:
        raise UsageError(f"fill {name!r} is not known, expected numbers or one of {', '.join(NAMED)}")
    return NAMED[name]


def apart(positions: IntArray, patch: Size) -> Iterator[IntArray]:
    """Indices into ``positions`` (int64 [N, 2]), in groups in which no two patches overlap."""
    rows, row_of = np.unique(positions[:, 0], return_inverse=True)
    cols, col_of = np.unique(positions[:, 1], return_inverse=True)
    row_group, col_group = _lines_apart(rows, patch[0])[row_of], _lines_apart(cols, patch[1])[col_of]
    turns = _turns(positions)
    groups = np.stack([turns, row_group, col_group], axis=1)
    _, group_of = np.unique(groups, axis=0, return_inverse=True)
    order = np.argsort(group_of.ravel(), kind="stable")
    bounds = np.flatnonzero(np.diff(group_of.ravel()[order])) + 1
    yield from np.split(order, bounds)


def _lines_apart(lines: IntArray, side: int) -> IntArray:
    """Numbers of groups of ascending ``lines``, ``side`` or more from one to the next in each: int64 [lines]."""
    groups, last = np.empty(len(lines), np.int64), list[int]()
    for number, line in enumerate(lines.tolist()):
        group = next((g for g, end in enumerate(last) if line >= end + side), len(last))
        if group == len(last):
            last.append(line)
        last[group] = line
        groups[number] = group
    return groups


def _turns(positions: IntArray) -> IntArray:
    """How often each position came before, int64 [N]: the same one twice overlaps itself."""
    _, same = np.unique(positions, axis=0, return_inverse=True)
    order = np.argsort(same.ravel(), kind="stable")
    sorted_same = same.ravel()[order]
    starts = np.r_[0, np.flatnonzero(np.diff(sorted_same)) + 1]
    turns = np.empty(len(positions), np.int64)
    turns[order] = np.arange(len(positions)) - np.repeat(starts, np.diff(np.r_[starts, len(positions)]))
    return turns


def collage(image: FloatArray, patches: FloatArray, positions: IntArray) -> FloatArray:
    """The image [C, H, W] with patches [N, C, h, w] at their positions."""
    picture = image.copy()
    height, width = patches.shape[2:]
    for one, (y, x) in zip(patches, positions.tolist(), strict=True):
        picture[:, y : y + height, x : x + width] = one
    return picture


def cut_out(image: FloatArray, positions: IntArray, patch: Size) -> FloatArray:
    """What lies under the patch, [N, C, h, w]."""
    windows = np.lib.stride_tricks.sliding_window_view(image, patch, axis=(1, 2))
    return np.ascontiguousarray(windows[:, positions[:, 0], positions[:, 1]].swapaxes(0, 1))


def _correlations(centred: DoubleArray) -> tuple[float, float]:
    """From one pixel to the next, along y and along x."""
    power = float((centred**2).mean())
    if power == 0:
        return 0.0, 0.0
    along_y = float((centred[:, 1:] * centred[:, :-1]).mean()) / power if centred.shape[1] > 1 else 0.0
    along_x = float((centred[:, :, 1:] * centred[:, :, :-1]).mean()) / power if centred.shape[2] > 1 else 0.0
    # Rounded, so that the matrices made from them are found again.
    return round(min(max(along_y, 0.0), 0.999), 3), round(min(max(along_x, 0.0), 0.999), 3)


@dataclass(frozen=True, slots=True)
class _Hidden:
    """The hidden pixels of a line, given those before and after: a factor of what a patch is.

    Attributes:
        root: [hidden, hidden], of their covariance given the known ones.
        weights: [hidden, line]: less these times the line, its hidden pixels being zero, is their mean.
    """

    root: DoubleArray
    weights: DoubleArray


@lru_cache(maxsize=256)
def _hidden(count: int, before: int, after: int, step: float) -> _Hidden:
    """Of ``count`` pixels between known ones, in a line whose correlation falls by ``step`` from pixel to pixel.

    The precision (the inverse covariance) of a patch within its window is the product of those of the lines, and that of such a
    line is tridiagonal.
    """
    length = before + count + after
    precision = np.diag(np.full(length, 1 + step * step)) - step * (np.eye(length, k=1) + np.eye(length, k=-1))
    precision[0, 0] = precision[-1, -1] = 1.0 if length > 1 else 1 - step * step
    precision /= 1 - step * step
    hidden = slice(before, before + count)
    covariance = np.asarray(np.linalg.inv(precision[hidden, hidden]), np.float64)
    return _Hidden(np.asarray(np.linalg.cholesky(covariance), np.float64), covariance @ precision[hidden])
