"""Verification by running: the normalised model against the source, the compiled one against full inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kcompiler.passes.batch import BatchError
from kcompiler.passes.load import Source
from kcompiler.runtime.check import Reference, random_image, sample_positions
from kcompiler.runtime.compare import Comparison, compare
from kcompiler.runtime.errors import ModelError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.full import FullInference
from kcompiler.runtime.images import FloatArray
from kcompiler.runtime.sessions import Machine, open_session

SEED = 2019
SPREADS = ("normal", "unit")
CPU = Machine(("cpu",))


def verify_normalised(source: Source, output: str, normalised: Path, own_output: str, largest_batch: int) -> int:
    """The normalised model must give the source's outputs, for a batch of images as for each alone.

    Args:
        source: as loaded; its file is run.
        output: of the source; ``own_output`` is its name in the normalised model.
        normalised: that model's file.
        largest_batch: images it takes at once.

    Returns:
        the count of numbers that the model puts out for an image.

    Raises:
        BatchError: the outputs differ: values are made of several images, or the batch cannot be freed.
        ModelError: the source cannot be run, or the outputs differ image by image.
    """
    kind = BatchError if largest_batch > 1 else ModelError
    images = np.concatenate([random_image(source.shape, seed, spread) for spread in SPREADS for seed in (SEED, SEED + 1)])
    expected = _run_source(source, output, images)
    full = FullInference(normalised, own_output, CPU, largest_batch)
    try:
        found = full.run(images)
    except Exception as error:  # ONNX Runtime raises a class per status code, with Exception as their only common base
        raise kind(f"{source.path}: cannot run a batch of images ({error}); export it with a dynamic batch") from error
    comparison = compare(
        found, expected, lambda: FullInference(normalised, own_output, CPU, largest_batch, optimise=False).run(images)
    )
    if not comparison.agrees:
        raise kind(
            f"{source.path}: once normalised it gives other outputs than as exported ({comparison.reason}); "
            "export it in inference mode, with a dynamic batch"
        )
    if not np.isfinite(expected).any():
        raise ModelError(f"{source.path}: gives no finite output for any random image, so nothing could be verified")
    return int(expected.shape[1])


def _run_source(source: Source, output: str, images: FloatArray) -> FloatArray:
    """Outputs [N, K] of the file as it was given, for images [N, C, H, W] one by one."""
    session = open_session(source.path, CPU)
    value = next(value for value in session.get_inputs() if value.name == source.image)
    batch = value.shape[0] if isinstance(value.shape[0], int) and value.shape[0] > 0 else 1
    laid_out = images if source.layout == "NCHW" else images.transpose(0, 2, 3, 1)
    try:
        outputs = [session.run([output], {source.image: np.repeat(image[None], batch, axis=0)})[0] for image in laid_out]
        return np.concatenate([np.asarray(one, dtype=np.float32).reshape(batch, -1)[:1] for one in outputs])
    except Exception as error:  # as above; and outputs that are no numbers, or mix the batch
        raise ModelError(f"{source.path}: cannot be run on an image of its own shape: {error}") from error


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
            shape, patch = explainer.manifest.shape, explainer.manifest.patch
            self.reference = Reference(explainer, sample_positions(shape[1:], patch, self.count, SEED), seed=SEED)
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
        several, and workers have one each.
        """
        explainer = Explainer(self.folder, providers=("cpu",), graphs=True)
        if explainer.manifest.largest_batch == 1:
            explainer = Explainer(self.folder, providers=("cpu",), threads=1, graphs=True)
        if self.reference is not None:
            self.reference.explainer = explainer
        return explainer
