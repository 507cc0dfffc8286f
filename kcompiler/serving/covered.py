"""What the model sees and says with the patch at one place."""

from __future__ import annotations

import numpy as np

from kcompiler.runtime.arrays import ByteArray, FloatArray
from kcompiler.runtime.bundle.targets import Score
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.fills import PatchFill
from kcompiler.runtime.inputs.images import Fill, covering
from kcompiler.runtime.inputs.positions import check_positions
from kcompiler.serving.events import base64_of, finite
from kcompiler.serving.pictures import Subject


def outputs_at(explainer: Explainer, subject: Subject, fill: Fill, score: Score, corner: tuple[int, int]) -> dict[str, object]:
    """Scores of all classes, uncovered and with the patch at ``corner`` (y, x), and the patch's pixels.

    Raises:
        UsageError: the patch lies outside the image, or the fill does not fit.
    """
    manifest, engine, targets = explainer.manifest, explainer.exact, explainer.targets
    image = explainer.check_image(subject.tensor)
    corners = check_positions([corner], manifest.shape[1:], manifest.patch)
    covered_by = covering(fill, image, None, manifest.image_element)
    baseline = engine.baseline(image, covered_by, len(corners))
    output = targets.scored(score)[1]
    if (known := (manifest.patch, output)) not in subject.uncovered:
        subject.uncovered[known] = engine.unoccluded(baseline, output)
    y, x = corner
    height, width = manifest.patch
    if isinstance(covered_by, PatchFill):
        patch = covered_by.patches(image[0], corners, manifest.patch, 0)[0]
    else:
        patch = covered_by[:, y : y + height, x : x + width]
    return {
        "score": "output" if output == manifest.output else "logit",
        "uncovered": _plain(targets.scores(subject.uncovered[known], output)),
        "covered": _plain(targets.scores(engine.evaluate_all(baseline, corners, output)[0], output)),
        "patch": base64_of(as_pixels(explainer, subject, patch)),
        "size": [patch.shape[1], patch.shape[2]],
    }


def covering_picture(explainer: Explainer, subject: Subject, fill: Fill) -> ByteArray | None:
    """The picture that shows through the patch, uint8 [H, W, 3]; None where each position has a patch of its own."""
    covered_by = covering(fill, explainer.check_image(subject.tensor), None, explainer.manifest.image_element)
    return None if isinstance(covered_by, PatchFill) else as_pixels(explainer, subject, covered_by)


def as_pixels(explainer: Explainer, subject: Subject, values: FloatArray) -> ByteArray:
    """Values in model units, float32 [C, h, w], as a picture, uint8 [h, w, 3]: as the page shows the model's image."""
    recipe = explainer.manifest.preprocessing
    if recipe is None or subject.path.suffix == ".npy":
        gray = explainer.check_image(subject.tensor)[0].mean(axis=0)
        pixels = (values.mean(axis=0) - gray.min()) / max(float(np.ptp(gray)), 1e-12) * 255
        channels = np.repeat(pixels[..., None], 3, axis=-1)
    else:
        channels = (np.moveaxis(values, 0, -1) * np.array(recipe.std) + np.array(recipe.mean)) / recipe.scale
        channels = channels[..., ::-1] if recipe.channel_order == "BGR" else channels
    shown = np.clip(np.rint(np.broadcast_to(channels, (*channels.shape[:2], 3))), 0, 255)
    return np.ascontiguousarray(shown, np.uint8)


def _plain(scores: FloatArray) -> list[float | None]:
    return [finite(score) for score in scores.tolist()]
