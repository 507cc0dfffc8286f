"""The sample of positions that a check looks at."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.measuring.check import sample_positions


@pytest.mark.parametrize("image", [(224, 224), (299, 299), (100, 240)])
def test_sample_meets_corners_and_every_alignment(image):
    positions = sample_positions(image, (16, 16), 64, seed=3)
    assert len(np.unique(positions, axis=0)) == len(positions) == 64
    corners = {(0, 0), (0, image[1] - 16), (image[0] - 16, 0), (image[0] - 16, image[1] - 16)}
    assert corners <= {tuple(p) for p in positions.tolist()}
    for axis in (0, 1):
        assert set(positions[:, axis] % 32) == set(range(32))
        assert positions[:, axis].min() >= 0
        assert positions[:, axis].max() <= image[axis] - 16


def test_sample_of_a_small_image_stays_inside():
    positions = sample_positions((20, 17), (16, 17), 40, seed=0)
    assert np.unique(positions[:, 0]).tolist() == [0, 1, 2, 3, 4]
    assert positions.tolist() == [[y, 0] for y in positions[:, 0]]
    assert len(positions) == 5, "none twice"
