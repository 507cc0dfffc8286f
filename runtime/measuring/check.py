"""Checking a bundle against full inference at a sample of positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray
from kcompiler.runtime.exactness.compare import Comparison, compare, worst
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inference.full import REORDERINGS, FullInference
from kcompiler.runtime.inputs.elements import FLOAT32, Element
from kcompiler.runtime.inputs.images import Numbers, fill_image
from kcompiler.runtime.progress import Steps

ALIGNMENTS = 32
"""Alignments of a position to the strides that a sample runs through: the product of all strides of a typical classifier."""
LAST_PLACES = (1, 2)
"""Seeds of images perturbed in the last place. A result that is exact for such an image cannot be improved on: it is backward
stable, in the terms of numerical analysis. These images show the rounding noise of models in which reordering changes no bit."""
ALIKE = 4
"""Positions in a small batch."""
PROBED = 72
"""Most positions that are evaluated in small batches and alone, since each takes a run."""
COMPARE = "comparing with full inference"
"""The name of this stage, where progress is shown."""
WAYS = 3
"""Ways to batch positions: together, in small batches, alone."""
FULL = 3
"""Steps of progress that a position of full inference counts for."""
UNCHANGED = 5e-3
"""Tolerance of approximate variants on the uncovered image, relative to the largest output; their rounding may be coarser."""


def sample_positions(image: tuple[int, int], patch: tuple[int, int], count: int, seed: int) -> IntArray:
    """Samples the four corners, then positions whose rows and columns run through every alignment to strides up to 32.

    Returns:
        int64 [count, 2], (y, x), distinct; fewer if the image has fewer positions, more if it has more corners.
    """
    rng = np.random.default_rng(seed)
    last = np.array([image[0] - patch[0], image[1] - patch[1]])
    corners = np.unique([(0, 0), (0, last[1]), (last[0], 0), tuple(last)], axis=0)
    rest = max(count - len(corners), 0)
    alignments = np.stack([rng.permutation(np.arange(rest) % ALIGNMENTS) for _ in range(2)], axis=1)
    blocks = rng.integers(0, last // ALIGNMENTS + 1, size=(rest, 2))
    drawn = blocks * ALIGNMENTS + alignments
    aligned = np.where(drawn <= last, drawn, alignments % (last + 1))
    total = int(np.prod(last + 1))
    numbers = rng.choice(total, size=min(count, total), replace=False)
    spare = np.stack(np.unravel_index(numbers, last + 1), axis=1)
    sample = np.concatenate([corners, aligned, spare])
    _, first = np.unique(sample, axis=0, return_index=True)
    return sample[np.sort(first)][: max(count, len(corners))].astype(np.int64)


def random_image(shape: tuple[int, int, int], seed: int, spread: str = "normal", element: Element = FLOAT32) -> FloatArray:
    """Random model input, float32 [1, C, H, W]: standard "normal", as normalised inputs are, or in the "unit" interval.

    For an ``element`` of whole numbers, pixels as in 8-bit pictures.
    """
    return element.random(np.random.default_rng(seed), (1, *shape), spread)


def check(
    explainer: Explainer,
    positions: IntArray,
    *,
    image: FloatArray | None = None,
    fill: Numbers | None = None,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> Comparison:
    """Compares the compiled model's outputs, with the logits, with full inference at ``positions``, int64 [N, 2].

    Args:
        image: float32 [1, C, H, W]; None takes a random image: of random pixels if the bundle has preprocessing, else standard
            normal, or in the unit interval if standard normal gives no finite output.
        fill: None takes another such image; a single colour would test only the sum of each kernel's weights.
        seed: seed of the random images.
        tell: is told the progress, (done, total).
    """
    return Reference(explainer, positions, image=image, fill=fill, seed=seed, tell=tell).compared(explainer)


class Reference:
    """Outputs of full inference at ``positions``, to compare compiled models with."""

    def __init__(
        self,
        explainer: Explainer,
        positions: IntArray,
        *,
        image: FloatArray | None = None,
        fill: Numbers | None = None,
        seed: int = 0,
        tell: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        """Runs full inference of the source model of ``explainer``; see :func:`check` for the arguments.

        ``tell`` is told the progress (done, total) of this and the first comparison together, then of each further one.
        """
        full = explainer.full_inference()
        self.explainer, self.positions = explainer, positions
        self.image = image if image is not None else _random_input(explainer, full, seed)
        element = explainer.manifest.image_element
        self.fill = element.fitted(fill) if fill is not None else _random_input(explainer, full, seed + 1)[0]
        self._tell, self._steps = tell, Steps(tell, (FULL + WAYS) * len(positions))
        self.outputs = self._run(full, self.image, self.fill, positions, told=lambda count: self._steps.advance(FULL * count))
        self._reordered: dict[int, tuple[FloatArray, ...]] = {}

    def _run(
        self,
        full: FullInference,
        image: FloatArray,
        fill: Numbers,
        positions: IntArray,
        told: Callable[[int], None] = lambda _: None,
    ) -> FloatArray:
        manifest = self.explainer.manifest
        return full.outputs(image, fill_image(fill, manifest.shape), positions, manifest.patch, *manifest.outputs, told=told)

    def reordered(self, numbers: IntArray) -> list[FloatArray]:
        """Outputs at the positions with these indices, for each other order of sums and each image perturbed in the last place.

        Results are kept, so that no position runs twice.
        """
        if missing := [number for number in numbers.tolist() if number not in self._reordered]:
            rows = zip(*self._run_reordered(self.positions[missing]), strict=True)
            self._reordered.update(zip(missing, rows, strict=True))
        return [np.stack(draw) for draw in zip(*(self._reordered[number] for number in numbers.tolist()), strict=True)]

    def _run_reordered(self, positions: IntArray) -> list[FloatArray]:
        explainer = self.explainer
        orders = [self._run(explainer.full_inference(order=order), self.image, self.fill, positions) for order in REORDERINGS]
        full, perturbed = explainer.full_inference(), explainer.manifest.image_element.in_last_place
        fill = fill_image(self.fill, explainer.manifest.shape)
        return orders + [self._run(full, perturbed(self.image, s), perturbed(fill, s), positions) for s in LAST_PLACES]

    def compared(self, explainer: Explainer) -> Comparison:
        """Compares a compiled model of the same source with these outputs."""
        engine = explainer.exact
        evaluated = self.evaluated(engine, engine.baseline(self.image, self.fill))
        self._steps = Steps(self._tell, WAYS * len(self.positions))
        return worst({way: self.judged(outputs) for way, outputs in evaluated.items()})

    def evaluated(self, engine: Engine, baseline: Baseline, most: int = PROBED) -> dict[str, FloatArray]:
        """Outputs of ``engine`` at the positions, [N, K per name], by batching: "together", "in batches", "alone".

        All regions of a batch have the extent of the largest, which hides an extent that is too small for a position. So
        positions are also evaluated alone, and in small batches of similar extents, as whole grids are. At most ``most``
        positions are; the other rows are those of "together". A model that runs whole has no regions, and only "together".
        """
        names, count = self.explainer.manifest.outputs, len(self.positions)
        together = np.empty_like(self.outputs)
        for part, outputs in engine.run(baseline, self.positions, *names):
            together[part] = outputs
            self._steps.advance(len(part))
        probed = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
        evaluated = {"together": together}
        for way, size in {} if engine.variant.whole else {"in batches": ALIKE, "alone": 1}.items():
            parts = [probed[part] for part in engine.batches(self.positions[probed], size)]
            batches = engine.evaluate_batches(baseline, [self.positions[part] for part in parts], *names)
            evaluated[way] = together.copy()
            for part, outputs in zip(parts, batches, strict=True):
                evaluated[way][part] = outputs
                self._steps.advance(len(part))
        return evaluated

    def judged(self, outputs: FloatArray) -> Comparison:
        """Compares outputs [N, K per name], those of the manifest's outputs side by side, with full inference.

        The output of a softmax or sigmoid also gets the tolerance that follows from that of its logits.
        """
        manifest = self.explainer.manifest

        def part(outputs: FloatArray, number: int) -> FloatArray:
            return np.split(outputs, len(manifest.outputs), axis=1)[number]

        def compared(number: int, passed_on: DoubleArray | float = 0.0) -> Comparison:
            reordered = partial(self._reordered_part, part, number)
            return compare(part(outputs, number), part(self.outputs, number), reordered, passed_on)

        if manifest.logits is None:
            return compared(0)
        logits = compared(1)
        if manifest.squashing is None:
            return worst({manifest.output: compared(0), manifest.logits: logits})
        allowed = logits.allowed if logits.allowed is not None else 0.0
        passed_on = manifest.squashing.passed_on(part(self.outputs, 0), np.broadcast_to(allowed, part(outputs, 0).shape))
        return worst({manifest.output: compared(0, passed_on), manifest.logits: logits})

    def _reordered_part(
        self, part: Callable[[FloatArray, int], FloatArray], number: int, positions: IntArray
    ) -> list[FloatArray]:
        return [part(outputs, number) for outputs in self.reordered(positions)]

    def unsound(self, engine: Engine) -> str:
        """Says what is wrong with an approximate ``engine``; empty if nothing is.

        Covering the image with its own pixels must change nothing, however coarse the approximation, and outputs must be finite
        where those of full inference are.
        """
        names, baseline = self.explainer.manifest.outputs, engine.baseline(self.image, self.fill)
        outputs = engine.evaluate_all(baseline, self.positions, *names)
        if not np.isfinite(outputs[np.isfinite(self.outputs)]).all():
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
