"""Verification by running: the normalised model against the source, the compiled one against full inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kcompiler.passes.graphs.batch import BatchError
from kcompiler.passes.normalising.logits import Logits
from kcompiler.passes.source.load import Source
from kcompiler.passes.source.source_model import SourceModel
from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.errors import ModelError
from kcompiler.runtime.exactness.compare import Comparison, compare
from kcompiler.runtime.exactness.noise import allowed_noise
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inference.full import REORDERINGS, FullInference
from kcompiler.runtime.inference.sessions import Machine
from kcompiler.runtime.measuring.check import LAST_PLACES, Reference, random_image, sample_positions

SEED = 2019
SMALL_FLOPS = 2e8
"""Of models that one thread is enough to verify."""
SPREADS = ("normal", "unit")
CPU = Machine(("cpu",))
FEWEST, MOST_NUMBERS = 4, 1 << 22
"""Positions at the least (the corners), and numbers at the most, that are held to be compared: dense outputs are large."""
FEW, MOST_FLOPS = 12, 2e12
"""Fewer positions than asked for, but not fewer than these, are compared where full inference of all takes more FLOPs, and where
a model runs whole."""


def verify_normalised(
    source: Source,
    output: str,
    normalised: Path,
    own_output: str,
    logits: Logits | None,
    largest_batch: int,
    reduction: Reduction | None = None,
) -> int:
    """The normalised model must give the source's outputs, for a batch of images as for each alone.

    Args:
        source: as loaded; its file is run.
        output: of the source, or a tensor inside it; ``own_output`` is its name in the normalised model.
        normalised: that model's file.
        logits: of the normalised model, whose rounding its softmax or sigmoid passes on.
        largest_batch: images it takes at once.
        reduction: of the source's dense output that the normalised model makes, or the driver is to make.

    Returns:
        the count of numbers, reduced if they are to be, that the model puts out for an image.

    Raises:
        BatchError: the outputs differ: values are made of several images, or the batch cannot be freed.
        ModelError: the source cannot be run, or the outputs differ image by image.
    """
    kind = BatchError if largest_batch > 1 else ModelError
    images = np.concatenate(
        [random_image(source.shape, seed, spread, source.element) for spread in SPREADS for seed in (SEED, SEED + 1)]
    )
    expected = _run_source(source, output, images)
    if reduction is not None and not reduction.by_driver:
        expected = reduction.over_all(expected)
    full = FullInference(normalised, own_output, CPU, largest_batch)

    def reordered(name: str) -> list[FloatArray]:
        """Not one by one: what differs so is made of several images, which no order of sums excuses."""
        orders = [order for order in REORDERINGS if not order.one_by_one]
        others = [FullInference(normalised, name, CPU, largest_batch, order).run(images) for order in orders]
        return others + [full.run(source.element.in_last_place(images, seed), name) for seed in LAST_PLACES]

    with foreign(lambda why: kind(f"{source.path}: cannot run a batch of images ({why}); export it with a dynamic batch")):
        found = full.run(images)

    def around_expected(numbers: IntArray) -> list[FloatArray]:
        """What another order of sums does to the normalised model; what normalising did is no rounding."""
        with np.errstate(invalid="ignore"):  # of what is infinite
            return [(expected + (other - found))[numbers] for other in reordered(own_output)]

    comparison = compare(found, expected, around_expected)
    if not comparison.agrees and logits is not None and logits.squashing is not None:
        at_logits = full.run(images, logits.name)
        finite = np.isfinite(at_logits)
        others = [np.where(finite, other, 0) for other in reordered(logits.name)]
        noise = np.broadcast_to(allowed_noise(np.where(finite, at_logits, 0), others), found.shape)
        comparison = compare(found, expected, around_expected, logits.squashing.passed_on(expected, noise))
    if not comparison.agrees:
        raise kind(
            f"{source.path}: once normalised it gives other outputs than as exported ({comparison.reason}); "
            "export it in inference mode, with a dynamic batch"
        )
    if not np.isfinite(expected).any():
        raise ModelError(f"{source.path}: gives no finite output for any random image, so nothing could be verified")
    return reduction.classes if reduction is not None else int(expected.shape[1])


def _run_source(source: Source, output: str, images: FloatArray) -> FloatArray:
    """Outputs [N, K] of the file as it was given, for images [N, C, H, W] one by one."""
    run = SourceModel(source, output)
    batch = run.batch
    with foreign(lambda why: ModelError(f"{source.path}: cannot be run on an image of its own shape: {why}")):
        outputs = [run(image, output) for image in images]
        return np.concatenate([np.asarray(one, dtype=np.float32).reshape(batch, -1)[:1] for one in outputs])


class Verifier:
    """Compares a bundle, also when it is written anew, with full inference at positions that include the four corners."""

    def __init__(self, folder: Path, count: int) -> None:
        """For the bundle at ``folder``, at ``count`` positions. Its full model must not change between comparisons."""
        self.folder, self.count = folder, count
        self.reference: Reference | None = None

    def compared(self) -> Comparison:
        """The exact variant with full inference."""
        explainer = self._explainer()
        if self.reference is None:
            manifest = explainer.manifest
            affordable = FEW if manifest.exact.whole else max(FEW, int(MOST_FLOPS // max(manifest.report.flops, 1)))
            count = min(self.count, affordable, max(FEWEST, MOST_NUMBERS // manifest.classes))
            self.reference = Reference(explainer, sample_positions(manifest.shape[1:], manifest.patch, count, SEED), seed=SEED)
        return self.reference.compared(explainer)

    def unsound(self) -> str:
        """Which approximate variant does not do what any approximation must, and why; empty if all do."""
        explainer = self._explainer()
        assert self.reference is not None, "the exact variant is compared first"
        _, *approximate = explainer.engines.items()
        found = ((name, self.reference.unsound(engine)) for name, engine in approximate)
        return "; ".join(f"{name}: {reason}" for name, reason in found if reason)

    def _explainer(self) -> Explainer:
        """Of the bundle as it is now; the reference runs the full model from there, too.

        A model that runs image by image runs on one thread: where sums are rounded to steps, ONNX Runtime gives other outputs on
        several, and workers have one each. So does a small one, which takes less time than the sessions of several workers.
        """
        explainer = Explainer(self.folder, providers=("cpu",), graphs=True)
        if explainer.manifest.largest_batch == 1 or explainer.manifest.report.flops < SMALL_FLOPS:
            explainer = Explainer(self.folder, providers=("cpu",), threads=1, graphs=True)
        if self.reference is not None:
            self.reference.explainer = explainer
        return explainer
