"""How far sums of float32 numbers may differ when they are taken in another order: what full inference leaves undecided.

A compiled model adds up the numbers of full inference in another order, so an error of it is one more draw of what reordering
does to full inference itself. Several such draws are at hand (``full.REORDERINGS``), few and of unlike columns; what the largest
error over all columns and positions may be is estimated from them as in the analysis of gene expression: variances of columns
are moderated towards each other by as much as they are alike, and the largest of many is compared with a quantile that knows how
many there are.

Source: Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray experiments",
Statistical Applications in Genetics and Molecular Biology 3(1), 2004, section 6.2 (moments of the logarithm of the variances).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray

FALSE_ALARM = 1e-4
"""Probability that a compiled model which rounds like full inference exceeds the allowance anywhere."""
MOST_DEVIATIONS = 10.0
"""An error of more is never explained by the order of sums. With few draws the quantile has no such end (a thousand deviations
for two), and would excuse anything; to refuse a model for rounding costs it transforms, at worst its regions, not exactness."""
STEPS, HEAD_STEPS, MOST_STEPS = 8, 2, 1024
"""Steps of float32 at the largest number of a column that are never told apart: the last operations round to them. And steps at
the largest of all columns, where that is more, but at most so many of its own: sums that cancel are of larger numbers."""
QUIET = 0.5
"""Orders that make at most this share of the noise of the noisiest are no draws of the same: they would hide how large it is."""
LOUD = 10.0
"""Columns louder than this times the median count as if they were as loud."""
NEWTON_STEPS = 50
ALL = slice(None)


def allowed_noise(full: FloatArray, reordered: Sequence[FloatArray], numbers: IntArray | slice = ALL) -> DoubleArray:
    """The largest error, per column, that a difference in the order of sums explains.

    Args:
        full: full inference, finite float32 [N, K]: N positions of K outputs.
        reordered: the same with sums in other orders, [n, K] each. Those that change little tell little and are left out.
        numbers: of the n positions that they are at.

    Returns:
        float64 [K], at least :func:`_steps`. A power of ten in ``full`` and
        ``reordered`` is the same power of ten here, as long as float32 has numbers that small in full precision.
    """
    magnitude: DoubleArray = np.abs(full.astype(np.float64)).max(axis=0)
    steps = _steps(magnitude)
    differences = _telling([found.astype(np.float64) - full[numbers] for found in reordered if np.isfinite(found).all()])
    if not differences or not steps.any():
        return steps
    from scipy.stats import t  # takes a while to import, and is seldom needed

    draws = np.stack(differences)  # [R, n, K]
    telling = (full[numbers] != 0) | (draws != 0).any(axis=0)  # what a ReLU cuts off shows no noise
    counts = telling.sum(axis=0)
    told = counts > 0
    if not told.any():
        return steps
    draws, counts = draws[..., told], counts[told]
    variances = (draws**2).sum(axis=(0, 1)) / (len(draws) * counts)
    variances += (steps[told] / STEPS) ** 2 / 12  # no column is without the last rounding
    moderate, freedom = moderated(variances, degrees_of_freedom(draws) * counts / draws.shape[1])
    quantile = np.minimum(t.isf(FALSE_ALARM / (2 * full.size), freedom), MOST_DEVIATIONS)
    allowed = steps.copy()
    allowed[told] = np.maximum(quantile * np.sqrt(np.maximum(moderate, variances)), steps[told])
    return allowed


def _telling(differences: Sequence[DoubleArray]) -> list[DoubleArray]:
    """Those of the draws that are no copies of others, and no quieter ones."""
    sizes = [float(np.sqrt((one**2).mean())) for one in differences]
    kept: list[DoubleArray] = []
    for one, size in zip(differences, sizes, strict=True):
        if size > QUIET * max(sizes) and not any(np.array_equal(one, other) for other in kept):
            kept.append(one)
    return kept


def _steps(magnitude: DoubleArray) -> DoubleArray:
    """What is never told apart, per column, from the columns' largest magnitudes [K]. Zero if all of them are."""
    float32 = np.finfo(np.float32)
    least = float(float32.tiny) if magnitude.any() else 0.0  # below, steps are as large as there
    cancelling = np.minimum(HEAD_STEPS * magnitude.max(initial=0), MOST_STEPS * magnitude)
    steps: DoubleArray = float(float32.eps) * np.maximum(np.maximum(STEPS * magnitude, cancelling), STEPS * least)
    return steps


def degrees_of_freedom(draws: DoubleArray) -> float:
    """How many independent draws the mean square over R reorderings and N positions is worth, from draws [R, N, K].

    Positions share most of their numbers, and with them a part of the noise: any two have the correlation q. By Satterthwaite's
    approximation a mean square of N such draws has N / (1 + (N - 1) q^2) degrees of freedom. Columns that are far louder than
    most do not decide alone.
    """
    count, positions, _ = draws.shape
    if positions < 2:
        return float(count)
    sizes = np.sqrt((draws**2).mean(axis=(0, 1)))
    usual = float(np.median(sizes[sizes > 0]))
    alike = draws / np.maximum(sizes / (LOUD * usual), 1)
    shared = float((alike.mean(axis=1) ** 2).mean() / (alike**2).mean())  # 1 / N of independent draws, 1 of equal ones
    correlation = min(max((shared - 1 / positions) / (1 - 1 / positions), 0.0), 1.0)
    return float(count * positions / (1 + (positions - 1) * correlation**2))


def moderated(variances: DoubleArray, freedom: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Variances [K] of ``freedom`` [K] degrees of freedom, drawn towards what they have in common.

    The variances of columns are taken to be scaled inverse chi-squared around a common value, with as many degrees of freedom as
    make the observed spread of their logarithms: without end where they are alike, next to none where they are not.

    Returns:
        the posterior means [K], and their degrees of freedom [K] (infinite where all columns are alike).
    """
    from scipy.special import digamma, polygamma

    if len(variances) < 2:
        return variances, freedom
    logarithms = np.log(variances) - digamma(freedom / 2) + np.log(freedom / 2)
    spread = float(np.var(logarithms, ddof=1) - polygamma(1, freedom / 2).mean())
    if spread <= 0:
        return np.full_like(variances, np.exp(logarithms.mean())), np.full_like(variances, np.inf)
    prior = 2 * _trigamma_inverse(spread)
    common = np.exp(logarithms.mean() + digamma(prior / 2) - np.log(prior / 2))
    return (prior * common + freedom * variances) / (prior + freedom), prior + freedom


def _trigamma_inverse(value: float) -> float:
    """The x above 0 whose trigamma function is ``value``: Newton's method on its reciprocal, which is convex (Smyth)."""
    from scipy.special import polygamma

    if value > 1e7:
        return float(value**-0.5)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(NEWTON_STEPS):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x
