"""Checking a bundle against full inference at a sample of positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.exactness.compare import Comparison, compare, worst
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.engine import Baseline, Engine
from kcompiler.runtime.inference.full import REORDERINGS, FullInference
from kcompiler.runtime.inputs.elements import FLOAT32, Element
from kcompiler.runtime.inputs.images import Numbers, fill_image

ALIGNMENTS = 32
"""Commonly the product of all strides of a classifier."""
LAST_PLACES = (1, 2)
"""Seeds of images that differ in the last place. A result that is exact for such an image is as exact as any can be of the image
as given: backward stable, in the words of numerical analysis. This shows what is undecided where no reordering changes a bit."""
ALIKE = 4
"""Positions in a small batch."""
PROBED = 72
"""Positions that are evaluated in small batches and alone at most: each takes a run."""
UNCHANGED = 5e-3
"""What approximate variants may be off where nothing is covered, relative to the largest output: they may round coarser."""


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


def random_image(shape: tuple[int, int, int], seed: int, spread: str = "normal", element: Element = FLOAT32) -> FloatArray:
    """Random model input, float32 [1, C, H, W]: standard "normal", as normalised inputs are, or in the "unit" interval.

    Of whole numbers, those of pictures, where ``element`` is of such.
    """
    return element.random(np.random.default_rng(seed), (1, *shape), spread)


def check(
    explainer: Explainer, positions: IntArray, *, image: FloatArray | None = None, fill: Numbers | None = None, seed: int = 0
) -> Comparison:
    """Compares the compiled model's outputs, logits included, with full inference at ``positions``.

    Without an ``image`` (float32 [1, C, H, W]) on a random one: of random pixels if the bundle has preprocessing, else
    standard normal, or of the unit interval if that gives no finite output. Without a ``fill`` another such image shows through
    the patch: one colour would try a kernel by the sum of its weights alone.
    """
    return Reference(explainer, positions, image=image, fill=fill, seed=seed).compared(explainer)


class Reference:
    """Full inference at some positions, to compare compiled models with."""

    def __init__(
        self,
        explainer: Explainer,
        positions: IntArray,
        *,
        image: FloatArray | None = None,
        fill: Numbers | None = None,
        seed: int = 0,
    ) -> None:
        """Runs full inference of the model that ``explainer`` was compiled from; see :func:`check`."""
        full = explainer.full_inference()
        self.explainer, self.positions = explainer, positions
        self.image = image if image is not None else _random_input(explainer, full, seed)
        element = explainer.manifest.image_element
        self.fill = element.fitted(fill) if fill is not None else _random_input(explainer, full, seed + 1)[0]
        self.outputs = self._run(full, self.image, self.fill, positions)
        self._others: dict[int, tuple[FloatArray, ...]] = {}

    def _run(self, full: FullInference, image: FloatArray, fill: Numbers, positions: IntArray) -> FloatArray:
        manifest = self.explainer.manifest
        return full.outputs(image, fill_image(fill, manifest.shape), positions, manifest.patch, *manifest.outputs)

    def reordered(self, numbers: IntArray) -> list[FloatArray]:
        """The same outputs, at the positions of these numbers, with sums in other orders, and of images off in the last place."""
        if missing := [number for number in numbers.tolist() if number not in self._others]:
            rows = zip(*self._run_otherwise(self.positions[missing]), strict=True)
            self._others.update(zip(missing, rows, strict=True))
        return [np.stack(one) for one in zip(*(self._others[number] for number in numbers.tolist()), strict=True)]

    def _run_otherwise(self, positions: IntArray) -> list[FloatArray]:
        explainer = self.explainer
        orders = [self._run(explainer.full_inference(order=one), self.image, self.fill, positions) for one in REORDERINGS]
        full, off = explainer.full_inference(), explainer.manifest.image_element.in_last_place
        fill = fill_image(self.fill, explainer.manifest.shape)
        return orders + [self._run(full, off(self.image, seed), off(fill, seed), positions) for seed in LAST_PLACES]

    def compared(self, explainer: Explainer) -> Comparison:
        """A compiled model of the same source with this."""
        engine = explainer.exact
        return worst(
            {way: self.judged(found) for way, found in self.evaluated(engine, engine.baseline(self.image, self.fill)).items()}
        )

    def evaluated(self, engine: Engine, baseline: Baseline, most: int = PROBED) -> dict[str, FloatArray]:
        """What ``engine`` gives at the positions, [N, K a name] by the way they are evaluated in.

        Regions of a batch are as large as that of any of its positions needs: together with all others a position hides regions
        that are too small, alone it reads nothing around its own. Between lie small batches of alike positions, as whole grids
        are evaluated in. A model that runs whole has no regions. Of more than ``most`` positions, so many are tried so, and what
        the others give stands beside them.
        """
        names, count = self.explainer.manifest.outputs, len(self.positions)
        together = engine.evaluate_all(baseline, self.positions, *names)
        probed = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
        found = {"together": together}
        for way, size in {} if engine.variant.whole else {"in batches": ALIKE, "alone": 1}.items():
            parts = [probed[part] for part in engine.batches(self.positions[probed], size)]
            batches = engine.evaluate_batches(baseline, [self.positions[part] for part in parts], *names)
            found[way] = together.copy()
            for part, outputs in zip(parts, batches, strict=True):
                found[way][part] = outputs
        return found

    def judged(self, found: FloatArray) -> Comparison:
        """Outputs [N, K a name] at the positions, those of each of the manifest's outputs side by side, with this.

        Logits by themselves, and what a softmax or sigmoid makes of them with what their allowance is passed on as.
        """
        manifest = self.explainer.manifest

        def part(outputs: FloatArray, number: int) -> FloatArray:
            return np.split(outputs, len(manifest.outputs), axis=1)[number]

        def compared(number: int, passed_on: DoubleArray | float = 0.0) -> Comparison:
            reordered = partial(self._reordered_part, part, number)
            return compare(part(found, number), part(self.outputs, number), reordered, passed_on)

        if manifest.logits is None:
            return compared(0)
        logits = compared(1)
        if manifest.squashing is None:
            return worst({manifest.output: compared(0), manifest.logits: logits})
        allowed = logits.allowed if logits.allowed is not None else 0.0
        passed_on = manifest.squashing.passed_on(part(self.outputs, 0), np.broadcast_to(allowed, part(found, 0).shape))
        return worst({manifest.output: compared(0, passed_on), manifest.logits: logits})

    def _reordered_part(
        self, part: Callable[[FloatArray, int], FloatArray], number: int, positions: IntArray
    ) -> list[FloatArray]:
        return [part(outputs, number) for outputs in self.reordered(positions)]

    def unsound(self, engine: Engine) -> str:
        """What is wrong with an approximate ``engine``, empty if nothing is.

        Covering the image with its own pixels must change nothing, whatever was approximated; and what full inference finds
        finite must be finite.
        """
        names, baseline = self.explainer.manifest.outputs, engine.baseline(self.image, self.fill)
        found = engine.evaluate_all(baseline, self.positions, *names)
        if not np.isfinite(found[np.isfinite(self.outputs)]).all():
            return "its outputs are not finite where those of full inference are"
        full = self.explainer.full_inference().run(self.image, *names)[0]
        error = np.abs(engine.unoccluded(baseline, *names) - full)[np.isfinite(full)].max(initial=0)
        allowed = UNCHANGED * np.abs(full[np.isfinite(full)]).max(initial=0)
        return f"the image covered with its own pixels is off by {error:.3g}, allowed is {allowed:.3g}" if error > allowed else ""


def _random_input(explainer: Explainer, reference: FullInference, seed: int) -> FloatArray:
    shape, recipe, element = explainer.manifest.shape, explainer.manifest.preprocessing, explainer.manifest.image_element
    if recipe is not None:
        pixels = np.random.default_rng(seed).integers(0, 256, (1, *shape[1:], shape[0]))
        return element.fitted(recipe.to_input(pixels))
    image = random_image(shape, seed, element=element)
    return image if np.isfinite(reference.run(image)).any() else random_image(shape, seed, "unit", element)
