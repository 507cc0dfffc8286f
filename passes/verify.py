"""Verification by running: the normalised model against the source, the compiled one against full inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kcompiler.passes.load import Source
from kcompiler.runtime.check import check, random_image, sample_positions
from kcompiler.runtime.compare import Comparison, compare
from kcompiler.runtime.errors import CheckFailed, ModelError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.full import FullInference
from kcompiler.runtime.sessions import Machine, open_session

SEED = 2019
CPU = Machine(("cpu",))


def verify_normalised(source: Source, normalised: Path, output: str) -> int:
    """The normalised model must give the source's outputs, for a batch of images as for each alone.

    Returns:
        the count of numbers that the model puts out for an image.

    Raises:
        ModelError: it does not: the model mixes the images of a batch, or its batch is built in where it cannot be freed.
    """
    images = np.concatenate([random_image(source.shape, seed) for seed in range(SEED, SEED + 3)])
    session = open_session(source.path, CPU)
    image = next(value for value in session.get_inputs() if value.name == source.image)
    in_source_layout = images if source.layout == "NCHW" else images.transpose(0, 2, 3, 1)
    batch = image.shape[0] if isinstance(image.shape[0], int) else 1
    alone = [session.run([output], {image.name: np.repeat(one[None], batch, axis=0)})[0] for one in in_source_layout]
    expected = np.stack([np.asarray(outputs, dtype=np.float32).reshape(batch, -1)[0] for outputs in alone])
    try:
        found = FullInference(normalised, output, CPU).run(images)
    except Exception as error:  # ONNX Runtime raises a class per status code, with Exception as their only common base
        raise ModelError(f"{source.path}: cannot run a batch of images ({error}); export it with a dynamic batch") from error
    comparison = compare(found, expected, lambda: FullInference(normalised, output, CPU, optimise=False).run(images))
    if not comparison.agrees:
        raise ModelError(
            f"{source.path}: with a free batch it gives other outputs than as exported ({comparison.reason}); "
            "export it in inference mode, with a dynamic batch"
        )
    return int(expected.shape[1])


def verify_compiled(folder: Path, count: int) -> Comparison:
    """The bundle at ``folder`` against full inference at ``count`` positions, the four corners among them.

    Raises:
        CheckFailed: they disagree.
    """
    explainer = Explainer(folder, providers=("cpu",))
    manifest = explainer.manifest
    comparison = check(explainer, sample_positions(manifest.shape[1:], manifest.patch, count, SEED), seed=SEED)
    if not comparison.agrees:
        raise CheckFailed(
            f"{manifest.model}: the compiled model disagrees with full inference ({comparison.reason}); nothing was written. "
            "This is a defect of kcompiler: please report it with the model"
        )
    return comparison
