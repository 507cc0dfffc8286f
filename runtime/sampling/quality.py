"""How close an approximate heat map is to the exact one."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from kcompiler.runtime.arrays import ByteArray, FloatArray

WINDOW = 7
"""Side of SSIM's window, in cells (Wang et al. 2004 and scikit-image's default); less where a map is smaller."""
TOP_SHARE = 0.05
CONSTANT = 1e-6
"""A map whose range is this share of its largest number, or less, is constant but for rounding."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one approximate map.

    Attributes:
        ssim: structural similarity of the raw maps, data range that of the exact one.
        pearson: correlation of the cells.
        top_overlap: share of the exact map's TOP_SHARE most sensitive cells that are among the approximate map's.
        rendered_ssim: of the two maps as colour pictures, which is how the Krypton paper measures it.
    """

    ssim: float
    pearson: float
    top_overlap: float
    rendered_ssim: float

    def record(self) -> dict[str, float]:
        return asdict(self)


def quality(approximate: FloatArray, exact: FloatArray, unoccluded: float) -> Quality:
    """All measures of two maps [rows, cols] of raw scores; ``unoccluded`` is the score of the image itself."""
    return Quality(
        ssim(approximate, exact),
        pearson(approximate, exact),
        top_overlap(unoccluded - approximate, unoccluded - exact),
        rendered_ssim(approximate, exact),
    )


def ssim(approximate: FloatArray, exact: FloatArray) -> float:
    """Structural similarity of two maps [rows, cols], with the exact map's range for data range.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, as scikit-image computes it. Of a constant exact map, 1 if the
    approximate one is the same but for rounding and else 0; of maps under 3 cells high or wide, 1 less the largest error
    over the range.
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
    """Correlation over the cells; where one of the maps is constant, 1 if they are equal and else 0."""
    one, other = approximate.astype(np.float64).ravel(), exact.astype(np.float64).ravel()
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one @ one) * (other @ other)))
    if size == 0.0:
        return float(np.array_equal(approximate, exact))
    return float(one @ other) / size


def top_overlap(approximate: FloatArray, exact: FloatArray, share: float = TOP_SHARE) -> float:
    """Share of the exact map's largest cells (``share`` of all, one at least) that are among the approximate map's."""
    count = max(1, round(share * exact.size))
    tops = [set(np.argsort(-one, axis=None, kind="stable")[:count].tolist()) for one in (approximate, exact)]
    return len(tops[0] & tops[1]) / count


def rendered_ssim(approximate: FloatArray, exact: FloatArray) -> float:
    """SSIM of the maps drawn as colour pictures, each stretched over its own range: the Krypton paper's measure (section 5)."""
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
