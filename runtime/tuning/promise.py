"""What calibration images can promise about unseen images, whatever their distribution.

Success of a plan on an image (the map reaches the SSIM) is a Bernoulli trial of unknown probability. A plan is chosen on some
images and judged on the others, so the number of successes there is binomial. Plans are judged from the most careful on, and
the first failure ends the sequence, so the confidence holds for all of them together (fixed sequence testing; Learn then Test,
Angelopoulos et al. 2021). Bounds are exact (Clopper and Pearson 1934).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def least_share(successes: int, trials: int, confidence: float) -> float:
    """Lower confidence bound on the probability of success, given ``successes`` of ``trials``."""
    from scipy.stats import beta  # takes most of a second to import, and is seldom needed

    if successes == 0:
        return 0.0
    return float(beta.ppf(1.0 - confidence, successes, trials - successes + 1))


def promises(successes: int, trials: int, share: float, confidence: float) -> bool:
    """Whether the probability of success is at least ``share``, with this confidence."""
    return trials > 0 and least_share(successes, trials, confidence) >= share


def images_needed(share: float, confidence: float) -> int:
    """Least number of held-out images that can promise anything; all of them must then be successes."""
    return int(np.ceil(np.log(1.0 - confidence) / np.log(share)))


def expected_of_next(images: int, share: float) -> int:
    """Successes among ``images`` that a plan needs to succeed on the next image with probability ``share`` or more.

    More than ``images`` if even success on all is not enough. The probability is over the draw of all images, not with
    confidence: every rank of the next image among the others is equally likely (conformal prediction, Vovk, Gammerman, Shafer
    2005, chapter 2). Images that chose the family of plans count too, which biases it upwards: an expectation, not a promise.
    """
    return int(np.ceil(share * (images + 1) - 1e-9))


def last_promised(kept: Sequence[int], trials: int, share: float, confidence: float) -> int | None:
    """Number of the last plan that can be promised, in order from the most careful; None if the first cannot.

    ``kept`` holds the successes of each plan in ``trials``.
    """
    last = None
    for number, successes in enumerate(kept):
        if not promises(successes, trials, share, confidence):
            break
        last = number
    return last
