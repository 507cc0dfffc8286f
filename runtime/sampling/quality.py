"""Quality of an approximate heat map, measured against the exact map."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from kcompiler.runtime.arrays import ByteArray, FloatArray

WINDOW = 7
"""Side of SSIM's window, in cells (Wang et al. 2004, and scikit-image's default); smaller for smaller maps."""
TOP_SHARE = 0.05
CONSTANT = 1e-6
"""A map whose range is at most this share of its largest magnitude is constant but for rounding."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of an approximate map.

    Attributes:
        ssim: structural similarity of the raw maps; the data range is the exact map's range.
        pearson: Pearson's correlation over the cells.
        top_overlap: share of the exact map's TOP_SHARE most sensitive cells that are also the approximate map's.
        rendered_ssim: SSIM of the two maps as colour pictures, as the Krypton paper measures it.
    """

    ssim: float
    pearson: float
    top_overlap: float
    rendered_ssim: float

    def record(self) -> dict[str, float]:
        return asdict(self)


def quality(approximate: FloatArray, exact: FloatArray, unoccluded: float) -> Quality:
    """All measures of two maps [rows, cols] of raw scores; ``unoccluded`` is the score of the uncovered image."""
    return Quality(
        ssim(approximate, exact),
        pearson(approximate, exact),
        top_overlap(unoccluded - approximate, unoccluded - exact),
        rendered_ssim(approximate, exact),
    )


def ssim(approximate: FloatArray, exact: FloatArray) -> float:
    """Structural similarity of two maps [rows, cols]; the data range is the exact map's range.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, as scikit-image computes it. If the exact map is constant, 1 if the
    approximate map equals it up to rounding, else 0. For maps under 3 cells high or wide, 1 less the largest error over the
    range.
    """
    approximate, exact = approximate.astype(np.float64), exact.astype(np.float64)
    extent, tolerance = float(np.ptp(exact)), CONSTANT * float(np.abs(exact).max())
    if extent <= tolerance:
        return float(np.abs(approximate - exact).max() <= tolerance)
    window = _window(exact.shape)
    if window < 3:
        return max(0.0, 1.0 - float(np.abs(approximate - exact).max()) / extent)
    from skimage.metrics import structural_similarity

    return float(structural_similarity(exact, approximate, data_range=extent, win_size=window))  # type: ignore[no-untyped-call]


def _window(shape: tuple[int, ...]) -> int:
    side = min(WINDOW, *shape)
    return side if side % 2 else side - 1


def pearson(approximate: FloatArray, exact: FloatArray) -> float:
    """Pearson's correlation over the cells; if a map is constant, 1 if they are equal, else 0."""
    a, b = approximate.astype(np.float64).ravel(), exact.astype(np.float64).ravel()
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    if norm == 0.0:
        return float(np.array_equal(approximate, exact))
    return float(a @ b) / norm


def top_overlap(approximate: FloatArray, exact: FloatArray, share: float = TOP_SHARE) -> float:
    """Share of the exact map's largest cells (``share`` of all, at least 1 cell) that are also the approximate map's largest."""
    count = max(1, round(share * exact.size))
    tops = [set(np.argsort(-drop, axis=None, kind="stable")[:count].tolist()) for drop in (approximate, exact)]
    return len(tops[0] & tops[1]) / count


def rendered_ssim(approximate: FloatArray, exact: FloatArray) -> float:
    """SSIM of the maps as colour pictures, each scaled to its own range: the Krypton paper's measure (section 5)."""
    from skimage.metrics import structural_similarity

    window = _window(exact.shape)
    if window < 3:
        return ssim(approximate, exact)
    return float(
        structural_similarity(_rendered(exact), _rendered(approximate), data_range=255, win_size=window, channel_axis=-1)  # type: ignore[no-untyped-call]
    )


def _rendered(scores: FloatArray) -> ByteArray:
    from matplotlib import colormaps

    extent = float(np.ptp(scores))
    unit = (scores - scores.min()) / extent if extent > 0 else np.zeros_like(scores)
    colours: ByteArray = colormaps["jet"](unit, bytes=True)[..., :3]
    return colours
