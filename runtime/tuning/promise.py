"""What calibration images allow to promise about unseen ones, whatever their distribution.

Whether a plan keeps the quality on an image is a coin with an unknown share of heads. A plan is chosen on some of the
images and judged on the others, so its successes there are binomial. Several plans are judged one after the other, from the
most careful on, and the first failure ends it: then the confidence holds for all together (fixed sequence testing; Learn
then Test, Angelopoulos et al. 2021). Bounds are exact (Clopper and Pearson 1934).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def least_share(successes: int, trials: int, confidence: float) -> float:
    """Lower confidence bound on the share of successes, given ``successes`` of ``trials``."""
    if successes == 0:
        return 0.0
    return float(stats.beta.ppf(1.0 - confidence, successes, trials - successes + 1))


def promises(successes: int, trials: int, share: float, confidence: float) -> bool:
    """Whether at least ``share`` is a success, with this confidence."""
    return trials > 0 and least_share(successes, trials, confidence) >= share


def images_needed(share: float, confidence: float) -> int:
    """Held-out images below which nothing can be promised, even if all of them are successes."""
    return int(np.ceil(np.log(1.0 - confidence) / np.log(share)))


def expected_of_next(images: int, share: float) -> int:
    """On how many of some images the most careless plan that is taken must be a success for the next one to be one, too, with
    probability ``share`` or more.

    More than ``images`` where even all are too few. On average over drawn images, not with confidence: an image is as likely to
    have any rank among the others (conformal prediction, Vovk, Gammerman, Shafer 2005, chapter 2). Images that chose between
    families of plans count among the others, which flatters the family: it is an expectation, not a promise.
    """
    return int(np.ceil(share * (images + 1) - 1e-9))


def last_promised(kept: Sequence[int], trials: int, share: float, confidence: float) -> int | None:
    """Number of the last plan that can be promised, of plans from the most careful on; None if not even the first can.

    ``kept`` are the successes of each in ``trials``.
    """
    last = None
    for number, successes in enumerate(kept):
        if not promises(successes, trials, share, confidence):
            break
        last = number
    return last
