"""The noise of full inference: how far its outputs differ when float32 sums are taken in another order.

A compiled model adds up the products of full inference in another order, so its error is a draw from the distribution of the
differences that reordering makes in full inference itself. A few such draws are measured (``full.REORDERINGS``), and their
variances differ between columns. The largest plausible error over all columns and positions is estimated as in the analysis of
gene expression: empirical Bayes shrinks the variances of columns towards each other, further if they are similar, and errors
are compared with a quantile that accounts for the number of columns and positions.

Source: Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray experiments",
Statistical Applications in Genetics and Molecular Biology 3(1), 2004, section 6.2 (moments of the logarithm of the variances).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, FloatArray, IntArray

FALSE_ALARM = 1e-4
"""Probability that a compiled model which rounds like full inference exceeds the noise tolerance anywhere."""
MOST_DEVIATIONS = 10.0
"""Upper limit of the tolerance, in standard deviations. The quantile for few draws is much larger (a thousand deviations for two)
and would excuse any error; refusing a model for its rounding costs transforms, at worst incremental inference, not exactness."""
STEPS, HEAD_STEPS, MOST_STEPS = 8, 2, 1024
"""Lower limits of the tolerance, in units in the last place (eps): STEPS at the largest magnitude of the column, since the last
operations round to these; or, if larger, HEAD_STEPS at the largest magnitude of all columns, but at most MOST_STEPS of the
column's own, since a sum that nearly cancels is of larger terms."""
QUIET = 0.5
"""Orders whose noise is at most this share of the noisiest order's are left out: they would lower the estimate."""
LOUD = 10.0
"""Columns whose noise exceeds this times the median are scaled down to it, for the correlation between positions."""
NEWTON_STEPS = 50
ALL = slice(None)


def allowed_noise(full: FloatArray, reordered: Sequence[FloatArray], numbers: IntArray | slice = ALL) -> DoubleArray:
    """The largest error, per column, that a difference in the order of sums explains.

    Args:
        full: outputs of full inference, finite float32 [N, K], at N positions.
        reordered: outputs of full inference with its sums in other orders, [n, K] each; orders of little noise are left out.
        numbers: indices of the n positions in ``full``.

    Returns:
        float64 [K], at least :func:`_steps`. Scaling ``full`` and ``reordered`` scales the result, as long as no number becomes
        subnormal in float32.
    """
    magnitude: DoubleArray = np.abs(full.astype(np.float64)).max(axis=0)
    steps = _steps(magnitude)
    differences = _distinct([outputs.astype(np.float64) - full[numbers] for outputs in reordered if np.isfinite(outputs).all()])
    if not differences or not steps.any():
        return steps
    from scipy.stats import t  # takes a while to import, and is seldom needed

    draws = np.stack(differences)  # [R, n, K]
    informative = (full[numbers] != 0) | (draws != 0).any(axis=0)  # a column that a ReLU sets to zero shows no noise
    counts = informative.sum(axis=0)
    noisy = counts > 0
    if not noisy.any():
        return steps
    draws, counts = draws[..., noisy], counts[noisy]
    variances = (draws**2).sum(axis=(0, 1)) / (len(draws) * counts)
    variances += (steps[noisy] / STEPS) ** 2 / 12  # the last rounding of every column, uniform over a unit in the last place
    posterior, freedom = moderated(variances, degrees_of_freedom(draws) * counts / draws.shape[1])
    quantile = np.minimum(t.isf(FALSE_ALARM / (2 * full.size), freedom), MOST_DEVIATIONS)
    allowed = steps.copy()
    allowed[noisy] = np.maximum(quantile * np.sqrt(np.maximum(posterior, variances)), steps[noisy])
    return allowed


def _distinct(differences: Sequence[DoubleArray]) -> list[DoubleArray]:
    """The draws without duplicates, and without orders of little noise (QUIET)."""
    sizes = [float(np.sqrt((draw**2).mean())) for draw in differences]
    kept: list[DoubleArray] = []
    for draw, size in zip(differences, sizes, strict=True):
        if size > QUIET * max(sizes) and not any(np.array_equal(draw, other) for other in kept):
            kept.append(draw)
    return kept


def _steps(magnitude: DoubleArray) -> DoubleArray:
    """The least tolerance per column, float64 [K], from the columns' largest magnitudes [K]; zero if all of these are."""
    float32 = np.finfo(np.float32)
    least = float(float32.tiny) if magnitude.any() else 0.0  # subnormal numbers have the spacing of the smallest normal one
    cancelling = np.minimum(HEAD_STEPS * magnitude.max(initial=0), MOST_STEPS * magnitude)
    steps: DoubleArray = float(float32.eps) * np.maximum(np.maximum(STEPS * magnitude, cancelling), STEPS * least)
    return steps


def degrees_of_freedom(draws: DoubleArray) -> float:
    """Degrees of freedom of the mean square over R orders and N positions, from draws [R, N, K].

    Positions share most of their activations, and so a part of the noise: any two have the correlation q. By Satterthwaite's
    approximation a mean square of N such draws has N / (1 + (N - 1) q^2) degrees of freedom. Columns of far larger noise than
    the median are scaled down, so that they do not determine q alone.
    """
    count, positions, _ = draws.shape
    if positions < 2:
        return float(count)
    sizes = np.sqrt((draws**2).mean(axis=(0, 1)))
    median = float(np.median(sizes[sizes > 0]))
    scaled = draws / np.maximum(sizes / (LOUD * median), 1)
    shared = float((scaled.mean(axis=1) ** 2).mean() / (scaled**2).mean())  # 1 / N for independent draws, 1 for equal draws
    correlation = min(max((shared - 1 / positions) / (1 - 1 / positions), 0.0), 1.0)
    return float(count * positions / (1 + (positions - 1) * correlation**2))


def moderated(variances: DoubleArray, freedom: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Shrinks sample variances [K] with ``freedom`` [K] degrees of freedom towards a common value (empirical Bayes).

    The prior of a column's variance is scaled inverse chi-squared around the common value. Its degrees of freedom are estimated
    from the spread of log sample variances: infinite if sampling alone explains the spread, near zero if the spread is wide.

    Returns:
        the posterior variances [K] and their degrees of freedom [K].
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
