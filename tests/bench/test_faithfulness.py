"""Curves of models whose probability is known in closed form; pointing at every border."""

import numpy as np
import pytest
from bench.faithfulness import STEPS, curve_area, faithfulness, importance_order, points_at, probability_of

from kcompiler.runtime.maps.heatmap import HeatMap

SIDE = 28
FILL = np.zeros((1, SIDE, SIDE), np.float32)
IMAGE = np.ones((1, SIDE, SIDE), np.float32)


def heat_map(scores, patch=1, stride=1, score="logit"):
    ys, xs = (np.arange(size) * stride for size in scores.shape)
    return HeatMap(scores=scores.astype(np.float32), unoccluded=5.0, target=0, label="0", ys=ys, xs=xs, patch=(patch, patch),
                   image=(SIDE, SIDE), seconds=0.0, sampled=np.ones(scores.shape, bool), score=score)  # fmt: skip


def brightness_of_row(row):
    return lambda images: images[:, 0, row].mean(axis=1)


@pytest.mark.parametrize("row", [0, 9, SIDE - 1])
def test_a_map_of_all_that_matters_removes_it_in_the_first_step(row):
    scores = np.full((SIDE, SIDE), 5.0)
    scores[row] = 1.0
    found = faithfulness(heat_map(scores), IMAGE[None], FILL, brightness_of_row(row), None)
    assert (found.deletion, found.insertion) == pytest.approx((0.5 / STEPS, 1 - 0.5 / STEPS))
    assert found.pointing is None
    worst = faithfulness(heat_map(-scores), IMAGE[None], FILL, brightness_of_row(row), None)
    assert (worst.deletion, worst.insertion) == pytest.approx((1 - 0.5 / STEPS, 0.5 / STEPS))


def test_a_map_of_drops_has_the_order_of_the_map_of_scores():
    scores = np.random.default_rng(0).permutation(SIDE**2).reshape(SIDE, SIDE).astype(np.float32)
    assert np.array_equal(importance_order(heat_map(scores)), np.argsort(scores, axis=None))
    assert np.array_equal(importance_order(heat_map(5.0 - scores, score="drop")), np.argsort(scores, axis=None))


@pytest.mark.parametrize("steps", [1, 5, STEPS])
def test_the_mean_of_all_pixels_falls_along_a_straight_line(steps):
    order = np.random.default_rng(0).permutation(SIDE**2)
    area = curve_area(IMAGE[0:1], FILL, order, lambda images: images.mean(axis=(1, 2, 3)), steps)
    assert area == pytest.approx(0.5, abs=1e-3)  # steps of whole pixels


def test_a_curved_probability_has_the_area_of_its_integral():
    area = curve_area(IMAGE, FILL, np.arange(SIDE**2), lambda images: images.mean(axis=(1, 2, 3)) ** 2)
    assert area == pytest.approx(1 / 3, abs=1 / STEPS**2)


@pytest.mark.parametrize(
    ("box", "hit"),
    [
        ((8, 8, 12, 12), True),
        ((0, 0, 7, 28), False),
        ((0, 0, 8, 28), True),
        ((12, 0, 28, 28), True),
        ((13, 0, 28, 28), False),
        ((0, 0, 28, 7), False),
        ((0, 12, 28, 28), True),
        ((0, 13, 28, 28), False),
    ],
)
def test_a_patch_points_at_what_it_touches(box, hit):
    scores = np.full((7, 7), 5.0)
    scores[2, 2] = 1.0  # the patch over rows and columns 8 to 12
    assert points_at(heat_map(scores, patch=4, stride=4), box) is hit
    assert points_at(heat_map(5.0 - scores, patch=4, stride=4, score="drop"), box) is hit


@pytest.mark.parametrize("logits", [None, "logits"])
def test_probabilities_are_those_of_the_target(logits):
    """Whether the model's own output is logits, or they are asked for by name."""

    class Full:
        asked = ()

        def run(self, images, *outputs):
            self.asked = outputs
            return images.reshape(len(images), -1)[:, :3]

    images = np.random.default_rng(0).standard_normal((11, 1, 2, 3)).astype(np.float32)
    full = Full()
    found = probability_of(full, 2, logits)(images)
    exponentials = np.exp(images.reshape(11, -1)[:, :3])
    np.testing.assert_allclose(found, exponentials[:, 2] / exponentials.sum(axis=1), rtol=1e-5)
    assert full.asked == (() if logits is None else ("logits",))
