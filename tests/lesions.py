"""What holds for every painted picture, whoever paints it."""

from __future__ import annotations

import numpy as np


def assert_changes_its_box_only(healthy: np.ndarray, ill: np.ndarray, box: tuple[int, ...], sides: tuple[int, int]) -> None:
    """``ill`` differs from ``healthy`` (both [H, W, 3]) inside of ``box``, at all its sides, which are of ``sides`` pixels."""
    top, left, bottom, right = box
    changed = (healthy != ill).any(axis=2)
    inside = changed[top:bottom, left:right]
    assert changed.sum() == inside.sum()
    assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    assert inside.mean() > 0.2
    assert sides[0] <= min(inside.shape) <= max(inside.shape) <= sides[1]
