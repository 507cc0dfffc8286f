"""Verification by execution: the normalised model against the source, the compiled model against full inference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from kcompiler.passes.graphs.batch import BatchError
from kcompiler.passes.normalising.logits import Logits
from kcompiler.passes.source.load import Source
from kcompiler.passes.source.source_model import SourceModel
from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.bundle.variant import DeviceName
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
"""FLOPs of a model up to which it is verified on one thread."""
SPREADS = ("normal", "unit")
LARGE_IMAGE = 1 << 24
"""Numbers of an image from which on there is one of each spread, not two: they are all in memory."""
CPU = Machine(("cpu",))
FEWEST, MOST_NUMBERS = 4, 1 << 22
"""The number of compared positions is reduced, to the corners at the least, so that outputs have at most this many elements:
dense outputs are large."""
FEW, MOST_FLOPS, MOST_PIXELS = 12, 2e12, 1 << 29
"""The number of compared positions is reduced, but not below the first figure, where full inference of all takes more FLOPs than
the second, or reads more numbers of images than the third. A model that runs whole is compared at the first figure."""


def verify_normalised(
    source: Source,
    output: str,
    normalised: Path,
    own_output: str,
    logits: Logits | None,
    largest_batch: int,
    reduction: Reduction | None = None,
) -> int:
    """Checks that the normalised model has the source's outputs, for a batch of images as for single images.

    Args:
        source: as loaded; its file is run.
        output: of the source, or a tensor inside it.
        normalised: file of the normalised model.
        own_output: name of ``output`` in the normalised model.
        logits: of the normalised model; its softmax or sigmoid passes their rounding error on.
        largest_batch: images that the normalised model takes at once.
        reduction: of the source's dense output, computed by the normalised model or to be computed by the driver.

    Returns:
        the number of output elements for an image, after the reduction if there is one.

    Raises:
        BatchError: outputs differ: the model mixes images of a batch, or its batch axis cannot be freed.
        ModelError: the source cannot be run, or outputs differ for single images.
    """
    kind = BatchError if largest_batch > 1 else ModelError
    seeds = (SEED, SEED + 1) if prod(source.shape) < LARGE_IMAGE else (SEED,)
    images = np.concatenate([random_image(source.shape, seed, spread, source.element) for spread in SPREADS for seed in seeds])
    expected = _run_source(source, output, images)
    if not expected.size:
        raise ModelError(f"{source.path}: output {output} has no numbers; choose another (--output NAME)")
    if reduction is not None and not reduction.by_driver:
        expected = reduction.over_all(expected)
    full = FullInference(normalised, own_output, CPU, largest_batch)

    def reordered(name: str) -> list[FloatArray]:
        """Outputs with other orders of summation, except image by image: a difference there means that images are mixed."""
        orders = [order for order in REORDERINGS if not order.one_by_one]
        others = [FullInference(normalised, name, CPU, largest_batch, order).run(images) for order in orders]
        return others + [full.run(source.element.in_last_place(images, seed), name) for seed in LAST_PLACES]

    with foreign(lambda why: kind(f"{source.path}: cannot run a batch of images ({why}); export it with a dynamic batch")):
        outputs = full.run(images)

    def around_expected(numbers: IntArray) -> list[FloatArray]:
        """``expected`` plus the rounding differences of the normalised model; its own difference to the source does not count."""
        with np.errstate(invalid="ignore"):  # infinities
            return [(expected + (other - outputs))[numbers] for other in reordered(own_output)]

    comparison = compare(outputs, expected, around_expected)
    if not comparison.agrees and logits is not None and logits.squashing is not None:
        at_logits = full.run(images, logits.name)
        finite = np.isfinite(at_logits)
        others = [np.where(finite, other, 0) for other in reordered(logits.name)]
        noise = np.broadcast_to(allowed_noise(np.where(finite, at_logits, 0), others), outputs.shape)
        comparison = compare(outputs, expected, around_expected, logits.squashing.passed_on(expected, noise))
    if not comparison.agrees:
        raise kind(
            f"{source.path}: once normalised it gives other outputs than as exported ({comparison.reason}); "
            "export it in inference mode, with a dynamic batch"
        )
    if not np.isfinite(expected).any():
        raise ModelError(f"{source.path}: gives no finite output for any random image, so nothing could be verified")
    return reduction.classes if reduction is not None else int(expected.shape[1])


def _run_source(source: Source, output: str, images: FloatArray) -> FloatArray:
    """Outputs [N, K] of the source file itself, for images [N, C, H, W] one by one."""
    run = SourceModel(source, output)
    with foreign(lambda why: ModelError(f"{source.path}: cannot be run on an image of its own shape: {why}")):
        outputs = run(images)
        return np.concatenate([np.asarray(array, dtype=np.float32).reshape(run.batch, -1)[:1] for array in outputs])


class Verifier:
    """Compares a bundle, also after it is rewritten, with full inference at positions that include the four corners."""

    def __init__(
        self,
        folder: Path,
        count: int,
        patch: tuple[int, int] | None = None,
        tell: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        """For the bundle at ``folder`` and a patch, at up to ``count`` positions. Its full model must not change in between.

        ``tell`` is told the progress of each comparison, (done, total).
        """
        self.folder, self.count, self.patch, self.tell = folder, count, patch, tell
        self.reference: Reference | None = None

    def compared(self, device: DeviceName = "cpu") -> Comparison:
        """The comparison of the exact variant for ``device``, run on the CPU, with full inference."""
        explainer = self._explainer(device)
        if self.reference is None:
            manifest = explainer.manifest
            affordable = min(int(MOST_FLOPS // max(manifest.report.flops, 1)), MOST_PIXELS // prod(manifest.shape))
            affordable = FEW if manifest.exact.whole else max(FEW, affordable)
            count = min(self.count, affordable, max(FEWEST, MOST_NUMBERS // manifest.classes))
            positions = sample_positions(manifest.shape[1:], manifest.patch, count, SEED)
            self.reference = Reference(explainer, positions, seed=SEED, tell=self.tell)
        return self.reference.compared(explainer)

    def unsound(self, device: DeviceName = "cpu") -> str:
        """The approximate variants for ``device`` that violate the invariants of any approximation; empty if none does."""
        explainer = self._explainer(device)
        assert self.reference is not None, "the exact variant is compared first"
        _, *approximate = explainer.engines.items()
        reasons = ((name, self.reference.unsound(engine)) for name, engine in approximate)
        return "; ".join(f"{name}: {reason}" for name, reason in reasons if reason)

    def _explainer(self, device: DeviceName) -> Explainer:
        """An explainer of the current bundle and its variants for ``device``. The reference runs the full model by it, too.

        A model that takes one image at a time runs on one thread: where quantisation rounds its sums, ONNX Runtime's output
        depends on the number of threads, and workers have one each. A small model does, too: to start workers would take longer.
        """
        opened = partial(Explainer, self.folder, providers=("cpu",), graphs=True, compiled_for=device, patch=self.patch)
        explainer = opened()
        if explainer.manifest.largest_batch == 1 or explainer.manifest.report.flops < SMALL_FLOPS:
            explainer = opened(threads=1)
        if self.reference is not None:
            self.reference.explainer = explainer
        return explainer
