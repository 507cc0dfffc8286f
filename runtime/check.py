"""Checking a bundle against full inference at a sample of positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcompiler.runtime.compare import Comparison, compare
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.images import FloatArray, fill_image
from kcompiler.runtime.positions import IntArray

ALIGNMENTS = 32
"""Commonly the product of all strides of a classifier."""


def sample_positions(image: tuple[int, int], patch: tuple[int, int], count: int, seed: int) -> IntArray:
    """The four corners, then positions whose rows, and whose columns, run through every alignment to strides up to 32.

    Returns:
        int64 [count, 2], (y, x), none twice: fewer where the image has no more, more if there are more corners.
    """
    rng = np.random.default_rng(seed)
    last = np.array([image[0] - patch[0], image[1] - patch[1]])
    corners = np.unique([(0, 0), (0, last[1]), (last[0], 0), tuple(last)], axis=0)
    more = max(count - len(corners), 0)
    alignments = np.stack([rng.permutation(np.arange(more) % ALIGNMENTS) for _ in range(2)], axis=1)
    blocks = rng.integers(0, last // ALIGNMENTS + 1, size=(more, 2))
    drawn = blocks * ALIGNMENTS + alignments
    aligned = np.where(drawn <= last, drawn, alignments % (last + 1))
    everywhere = int(np.prod(last + 1))
    numbers = rng.choice(everywhere, size=min(count, everywhere), replace=False)
    spare = np.stack(np.unravel_index(numbers, last + 1), axis=1)
    sample = np.concatenate([corners, aligned, spare])
    _, first = np.unique(sample, axis=0, return_index=True)
    return sample[np.sort(first)][: max(count, len(corners))].astype(np.int64)


def random_image(shape: tuple[int, int, int], seed: int) -> FloatArray:
    """Standard normal pixels, float32 [1, C, H, W]: model inputs are commonly normalised to that."""
    return np.random.default_rng(seed).standard_normal((1, *shape), dtype=np.float32)


def check(
    explainer: Explainer,
    positions: IntArray,
    *,
    image: FloatArray | None = None,
    fill: float | Sequence[float] = 0.5,
    seed: int = 0,
) -> Comparison:
    """Compares the compiled model with full inference at ``positions``, on ``image`` (float32 [1, C, H, W]) or a random one."""
    manifest = explainer.manifest
    picture = image if image is not None else random_image(manifest.shape, seed)
    covering = fill_image(fill, manifest.shape)

    def full(optimise: bool) -> FloatArray:
        reference = explainer.full_inference(optimise=optimise)
        return reference.outputs(picture, covering, positions, manifest.patch)

    return compare(explainer.evaluate_all(explainer.baseline(picture, fill), positions), full(True), lambda: full(False))
