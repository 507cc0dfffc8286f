"""Does a heat map show what the classifier looks at? Deletion, insertion and pointing.

Deletion removes pixels in the order of the map, the most important first, and watches the probability of the target: the
smaller the area under it, the better. Insertion starts from nothing and puts them back: the larger, the better. The model
runs whole, so neither depends on how the map was made. Source: Petsiuk, Das, Saenko, RISE, BMVC 2018, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid
from scipy.special import softmax

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.inference.full import FullInference
from kcompiler.runtime.maps.heatmap import HeatMap

STEPS = 28
BATCH = 8
"""Images a run: all of a curve at once would take a gigabyte in VGG16."""

Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, half-open."""
Probability = Callable[[FloatArray], FloatArray]
"""Of the target, float32 [N], in images float32 [N, C, H, W]."""


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Areas under the curves, 0 to 1; whether the map points at the finding, None where there is none to point at."""

    deletion: float
    insertion: float
    pointing: bool | None


def faithfulness(
    heat_map: HeatMap, image: FloatArray, fill: FloatArray, probability: Probability, box: Box | None
) -> Faithfulness:
    """All measures of a map of ``image`` (float32 [1, C, H, W]); ``fill`` (float32 [C, H, W]) is what a pixel is replaced by."""
    order = importance_order(heat_map)
    return Faithfulness(
        curve_area(image[0], fill, order, probability),
        curve_area(fill, image[0], order, probability),
        points_at(heat_map, box) if box is not None else None,
    )


def probability_of(full: FullInference, target: int, logits: str | None) -> Probability:
    """By full inference. ``logits`` is what the model's own softmax reads; None where the explained output is logits."""

    names = () if logits is None else (logits,)

    def probability(images: FloatArray) -> FloatArray:
        outputs = [full.run(images[start : start + BATCH], *names) for start in range(0, len(images), BATCH)]
        result: FloatArray = softmax(np.concatenate(outputs), axis=1)[:, target]
        return result

    return probability


def importance_order(heat_map: HeatMap) -> npt.NDArray[np.int64]:
    """Pixels int64 [H * W], those first that cost the target most when covered."""
    scores = heat_map.upsample()
    drop = scores if heat_map.score == "drop" else np.float32(heat_map.unoccluded) - scores
    return np.argsort(-drop, axis=None, kind="stable")


def curve_area(
    before: FloatArray, after: FloatArray, order: npt.NDArray[np.int64], probability: Probability, steps: int = STEPS
) -> float:
    """Area under the probability while ``before`` (float32 [C, H, W]) becomes ``after``, pixel by pixel in ``order``.

    In ``steps`` steps of equally many pixels, by the trapezoid rule, over a way of length 1.
    """
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    counts = np.linspace(0, order.size, steps + 1).round()
    changed = rank.reshape(1, *before.shape[1:]) < counts[:, None, None, None]
    curve = probability(np.where(changed, after, before)).astype(np.float64)
    return float(trapezoid(curve, dx=1 / steps))


def points_at(heat_map: HeatMap, box: Box) -> bool:
    """Whether the centre of the patch with the largest drop lies in ``box`` grown by half a patch: it then touches it."""
    corner = np.unravel_index(heat_map.drop.argmax(), heat_map.scores.shape)
    for axis, (place, lines) in enumerate(zip(corner, (heat_map.ys, heat_map.xs), strict=True)):
        half = heat_map.patch[axis] / 2
        if not box[axis] - half <= lines[place] + half <= box[axis + 2] + half:
            return False
    return True
