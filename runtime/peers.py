"""Maps as other tools make them: the same arguments and the same arrays, from compiled models.

Each function follows its tool's rules for positions, fill, and the aggregation of scores to pixels. The patch is the bundle's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.fills import PatchFill, PatchMean, Size, Veil, cut_out
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.images import covering as covering_by
from kcompiler.runtime.inputs.positions import Grid, make_grid, stride_pair
from kcompiler.runtime.maps.aggregate import covering

SIGMA_SCALE = 0.125
LEAST_IMPORTANCE = 1e-3
TRUNCATED = 4.0
AT_ONCE = 32
"""Number of classes that are aggregated together; all of them may not fit in memory."""


def captum(
    explainer: Explainer,
    image: npt.ArrayLike,
    target: int | str,
    *,
    strides: int | tuple[int, int] | None = None,
    baselines: Fill = 0.0,
    per_channel: bool = False,
) -> FloatArray:
    """Attributions of Captum's ``Occlusion``: for each pixel the mean drop over the patches that cover it, float32 [C, H, W].

    The last patch is cut off at the edge. The score is the output, not the logit.

    Args:
        image: float32 [C, H, W] or [1, C, H, W], preprocessed.
        target: index or label of the class; for a single sigmoid output, class 1 is Captum's target 0.
        strides: pixels, a number or (y, x); None is the patch size.
        baselines: the fill.
        per_channel: whether patches cover a single channel each, as by ``sliding_window_shapes=(1, h, w)``; otherwise they cover
            all channels, and all channels of the result are equal.

    Raises:
        UsageError: strides larger than the patch.
    """
    manifest = explainer.manifest
    steps = manifest.patch if strides is None else stride_pair(strides)
    if any(step > side for step, side in zip(steps, manifest.patch, strict=True)):
        raise UsageError(f"strides is {strides}, expected at most the patch {list(manifest.patch)}: every pixel must be covered")
    grid = make_grid(manifest.shape[1:], manifest.patch, steps, edges="cut")
    index = explainer.targets.index(target)
    channels: Sequence[int | None] = range(manifest.shape[0]) if per_channel else (None,)
    maps = [_drops(explainer, image, grid, index, baselines, channel) for channel in channels]
    totals = [covering(drop, grid.ys, grid.xs, manifest.patch, manifest.shape[1:]) for drop in maps]
    means = np.stack([total / weight for total, weight in totals]).astype(np.float32)
    return np.broadcast_to(means, manifest.shape).copy()


def xplique(
    explainer: Explainer,
    image: npt.ArrayLike,
    target: int | str,
    *,
    patch_stride: int | tuple[int, int] = 3,
    occlusion_value: Fill = 0.0,
) -> FloatArray:
    """Sensitivities of Xplique's ``Occlusion``: for each pixel the sum of drops over the patches that cover it, float32 [H, W].

    All patches lie wholly in the image. The score is the output, not the logit.
    """
    manifest = explainer.manifest
    grid = make_grid(manifest.shape[1:], manifest.patch, patch_stride)
    drops = _drops(explainer, image, grid, explainer.targets.index(target), occlusion_value, None)
    total, _ = covering(drops, grid.ys, grid.xs, manifest.patch, manifest.shape[1:])
    return total.astype(np.float32)


def monai(
    explainer: Explainer,
    image: npt.ArrayLike,
    *,
    mode: Literal["gaussian", "mean_img", "mean_patch"] | float = "gaussian",
    overlap: float = 0.6,
) -> tuple[FloatArray, IntArray]:
    """The maps of MONAI's ``OcclusionSensitivity``: for each pixel and class the mean output over the patches that cover it.

    The last patch is moved inward. MONAI applies a softmax (or sigmoid) to the network's output by default: compile a model
    that ends in it; without it, the maps are those of ``activate=False``.

    Args:
        image: float32 [C, H, W] or [1, C, H, W], preprocessed.
        mode: the fill: a number; "mean_img", the mean of the image; "mean_patch", the covered pixels times their mean (as MONAI
            does); "gaussian", the covered pixels times 1 less a Gaussian, with means weighted by a Gaussian too.
        overlap: share by which neighbouring patches overlap, 0 <= overlap < 1.

    Returns:
        float32 [1, classes, H, W], and the most probable class of each pixel, int64 [1, 1, H, W].

    Raises:
        UsageError: unknown ``mode``, or ``overlap`` out of range.
    """
    manifest = explainer.manifest
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap is {overlap}, expected at least 0, less than 1")
    checked = explainer.check_image(image)
    size, patch = manifest.shape[1:], manifest.patch
    steps = [max(int(side * (1 - overlap)), 1) if side != whole else side for side, whole in zip(patch, size, strict=True)]
    grid = make_grid(size, patch, stride_pair((steps[0], steps[1])), edges="inward")
    weights = None
    fill: float | PatchFill
    if mode == "gaussian":
        fill, weights = Veil(_bell_hole(patch)), _importance(patch)
    elif mode == "mean_img":
        fill = float(manifest.image_element.fitted(checked.mean()))
    elif mode == "mean_patch":
        fill = _TimesOwnMean()
    elif isinstance(mode, str):
        raise UsageError(f"mode is {mode!r}, expected a number, 'gaussian', 'mean_img' or 'mean_patch'")
    else:
        fill = float(mode)
    scores = explainer.outputs(image, grid.positions, fill).T.reshape(-1, *grid.shape)
    maps = np.empty((1, len(scores), *size), np.float32)
    for first in range(0, len(scores), AT_ONCE):
        total, weight = covering(scores[first : first + AT_ONCE], grid.ys, grid.xs, patch, size, weights)
        maps[0, first : first + AT_ONCE] = total / weight
    return maps, maps.argmax(axis=1, keepdims=True)


def _drops(explainer: Explainer, image: npt.ArrayLike, grid: Grid, target: int, fill: Fill, channel: int | None) -> FloatArray:
    """Decrease of the output at each position, float32 [rows, cols]."""
    checked = explainer.check_image(image)
    baseline = explainer.exact.baseline(
        checked, covering_by(fill, checked, channel, explainer.manifest.image_element), len(grid.positions)
    )
    output = explainer.manifest.output
    column = explainer.targets.column(target, output)
    uncovered = explainer.exact.unoccluded(baseline, output)
    explainer.targets.check_seen(target, explainer.targets.scores(uncovered, output))
    unoccluded = column.of(uncovered)
    scores = explainer.exact.scores(baseline, grid.positions, output, column.of)
    drops: FloatArray = (unoccluded - scores).reshape(grid.shape)
    return drops


class _TimesOwnMean(PatchMean):
    """MONAI multiplies the covered pixels by their mean, although its documentation says that it replaces them."""

    def patches(self, image: FloatArray, positions: IntArray, patch: Size, sample: int) -> FloatArray:
        means = PatchMean.patches(self, image, positions, patch, sample)
        multiplied: FloatArray = cut_out(image, positions, patch) * means
        return multiplied


def _bell_hole(patch: tuple[int, int]) -> FloatArray:
    """MONAI's multiplier, float32 [h, w]: 1 less a Gaussian of a quarter of the patch, from 0 at its peak to 1 at the border.

    The Gaussian is integrated over each pixel and truncated at four standard deviations, as in MONAI's filter.
    """
    from scipy.special import erf

    lines = []
    for side in patch:
        sigma = 0.25 * side
        tail = int(max(sigma * TRUNCATED, 0.5) + 0.5)
        steps = np.arange(-tail, tail + 1)
        scale = np.sqrt(0.5) / abs(sigma)
        kernel = np.maximum(0.5 * (erf(scale * (steps + 0.5)) - erf(scale * (steps - 0.5))), 0)
        impulse = np.zeros(side)
        impulse[side // 2] = 1
        lines.append(np.convolve(impulse, kernel)[tail : tail + side])
    bell = np.outer(*lines)
    extent = bell.max() - bell.min() or 1.0  # a patch of a single pixel hides it
    hole: FloatArray = ((bell.max() - bell) / extent).astype(np.float32)
    return hole


def _importance(patch: tuple[int, int]) -> DoubleArray:
    """Weights of a patch's pixels in MONAI's mean, [h, w]."""
    lines = []
    for side in patch:
        steps = np.arange(side) - (side - 1) / 2
        lines.append(np.exp(steps**2 / (-2 * (side * SIGMA_SCALE) ** 2)))
    importance: DoubleArray = np.outer(*lines)
    return np.maximum(importance, max(float(importance.min()), LEAST_IMPORTANCE))
