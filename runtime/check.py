"""Checking a bundle against full inference at a sample of positions."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from kcompiler.runtime.compare import Comparison, compare
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.full import FullInference
from kcompiler.runtime.images import Fill, FloatArray, fill_image
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


def random_image(shape: tuple[int, int, int], seed: int, spread: str = "normal") -> FloatArray:
    """Random model input, float32 [1, C, H, W]: standard "normal", as normalised inputs are, or in the "unit" interval."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal if spread == "normal" else rng.random
    return draw((1, *shape), dtype=np.float32)


def check(
    explainer: Explainer, positions: IntArray, *, image: FloatArray | None = None, fill: Fill = 0.5, seed: int = 0
) -> Comparison:
    """Compares the compiled model with full inference at ``positions``.

    Without an ``image`` (float32 [1, C, H, W]) on a random one: of random pixels if the bundle has preprocessing, else
    standard normal, or of the unit interval if that gives no finite output.
    """
    return Reference(explainer, positions, image=image, fill=fill, seed=seed).compared(explainer)


class Reference:
    """Full inference at some positions, to compare compiled models with."""

    def __init__(
        self, explainer: Explainer, positions: IntArray, *, image: FloatArray | None = None, fill: Fill = 0.5, seed: int = 0
    ) -> None:
        """Runs full inference of the model that ``explainer`` was compiled from; see :func:`check`."""
        full = explainer.full_inference()
        self.explainer, self.positions, self.fill = explainer, positions, fill
        self.image = image if image is not None else _random_input(explainer, full, seed)
        self.outputs = self._run(full)

    def _run(self, full: FullInference) -> FloatArray:
        manifest = self.explainer.manifest
        return full.outputs(self.image, fill_image(self.fill, manifest.shape), self.positions, manifest.patch)

    @cached_property
    def unoptimised(self) -> FloatArray:
        """Without ONNX Runtime's optimisations."""
        return self._run(self.explainer.full_inference(optimise=False))

    def compared(self, explainer: Explainer) -> Comparison:
        """A compiled model of the same source with this."""
        found = explainer.evaluate_all(explainer.baseline(self.image, self.fill), self.positions)
        return compare(found, self.outputs, lambda: self.unoptimised)


def _random_input(explainer: Explainer, reference: FullInference, seed: int) -> FloatArray:
    shape, recipe = explainer.manifest.shape, explainer.manifest.preprocessing
    if recipe is not None:
        pixels = np.random.default_rng(seed).integers(0, 256, (1, *shape[1:], shape[0]))
        return recipe.to_input(pixels)
    image = random_image(shape, seed)
    return image if np.isfinite(reference.run(image)).any() else random_image(shape, seed, "unit")
