"""Bounds on unseen images against the binomial distribution itself, and over many made-up populations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kcompiler.runtime.tuning.promise import expected_of_next, images_needed, last_promised, least_share, promises


@pytest.mark.parametrize(("successes", "trials"), [(29, 29), (45, 46), (10, 20), (1, 5)])
def test_bound_is_the_share_at_which_so_many_successes_are_as_rare_as_allowed(successes, trials):
    bound = least_share(successes, trials, 0.95)
    assert stats.binom.sf(successes - 1, trials, bound) == pytest.approx(0.05, rel=1e-6)


def test_nothing_is_promised_from_nothing():
    assert least_share(0, 10, 0.9) == 0.0
    assert not promises(0, 0, 0.5, 0.5)


@pytest.mark.parametrize(("share", "confidence"), [(0.9, 0.95), (0.8, 0.9), (0.95, 0.99)])
def test_images_needed_are_the_fewest_that_can_promise(share, confidence):
    needed = images_needed(share, confidence)
    assert promises(needed, needed, share, confidence)
    assert not promises(needed - 1, needed - 1, share, confidence)


def test_plans_after_the_first_failure_are_not_considered():
    assert last_promised([30, 30, 20, 30], 30, 0.9, 0.95) == 1
    assert last_promised([20, 30], 30, 0.9, 0.95) is None


def test_promises_of_many_plans_hold_together():
    """Plans ever worse than the last; the one that is promised is truly good enough in at least 95% of draws."""
    rng = np.random.default_rng(0)
    true_shares = np.linspace(0.99, 0.7, 25)
    broken = 0
    for _ in range(2000):
        kept = rng.binomial(40, true_shares)
        last = last_promised(kept.tolist(), 40, 0.9, 0.95)
        broken += last is not None and true_shares[last] < 0.9
    assert broken / 2000 <= 0.06


def test_what_is_expected_of_the_next_image_holds_on_average():
    """The threshold that so many of 14 images meet, met by a fifteenth in at least 0.9 of draws."""
    rng = np.random.default_rng(5)
    qualities = rng.random((20000, 15))
    needed = expected_of_next(14, 0.9)
    thresholds = np.sort(qualities[:, :14], axis=1)[:, 14 - needed]
    assert (qualities[:, 14] >= thresholds).mean() >= 0.9
    assert needed == 14
    assert expected_of_next(8, 0.9) == 9, "eight images are too few"
    assert expected_of_next(29, 0.9) == 27
