"""Checking a bundle against full inference at a sample of positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcompiler.runtime.compare import Comparison, compare
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.images import FloatArray, fill_image
from kcompiler.runtime.positions import IntArray


def sample_positions(image: tuple[int, int], patch: tuple[int, int], count: int, seed: int) -> IntArray:
    """The four corners, then random positions that together meet every alignment to strides up to their number; int64 [count, 2].

    Positions are drawn without repetition while the image has as many.
    """
    rows, cols = image[0] - patch[0] + 1, image[1] - patch[1] + 1
    corners = dict.fromkeys([(0, 0), (0, cols - 1), (rows - 1, 0), (rows - 1, cols - 1)])
    order = np.random.default_rng(seed).choice(rows * cols, size=min(rows * cols, count + 4), replace=False)
    drawn = dict.fromkeys((int(number) // cols, int(number) % cols) for number in order)
    return np.array(list(corners | drawn)[: max(count, len(corners))], dtype=np.int64)


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
    """Compares the compiled model with full inference at ``positions``, on ``image`` or a random one."""
    manifest = explainer.manifest
    picture = image if image is not None else random_image(manifest.shape, seed)
    covering = fill_image(fill, manifest.shape)

    def full(optimise: bool) -> FloatArray:
        reference = explainer.full_inference(optimise=optimise)
        return reference.outputs(picture, covering, positions, manifest.patch)

    return compare(explainer.outputs(picture, positions, fill), full(True), lambda: full(False))
