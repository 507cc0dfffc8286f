"""How overlays are drawn: colours, their scale, opacity, an outline of what matters most."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kcompiler.runtime.errors import UsageError

DIVERGING = ("RdBu", "PuOr", "PRGn", "PiYG", "BrBG", "RdYlBu", "Spectral", "coolwarm", "bwr", "seismic")
"""matplotlib's colour maps with a neutral middle; "_r" after a name swaps its ends."""


@dataclass(frozen=True, slots=True)
class Style:
    """How overlays are drawn.

    Attributes:
        range: (low, high), the drops at the ends of the colour scale, to compare maps by; low <= 0 <= high. A unit has the same
            strength on both sides of 0. None: the largest drop of the map at hand, either way.
        colours: a diverging colour map of matplotlib; its upper end is what covering lowers.
        opacity: of the strongest colour.
        outline: the share of the pixels, those of the largest drops, to draw a contour around; None draws none.
    """

    range: tuple[float, float] | None = None
    colours: str = "RdBu_r"
    opacity: float = 0.75
    outline: float | None = None

    def __post_init__(self) -> None:
        """Checks the attributes.

        Raises:
            UsageError: one is out of range.
        """
        if self.range is not None:
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high and low < high):
                raise UsageError(f"range is {[low, high]}, expected LOW,HIGH with LOW <= 0 <= HIGH, or one positive number")
        if self.colours.removesuffix("_r") not in DIVERGING:
            raise UsageError(f"colours is {self.colours!r}, expected one of {', '.join(DIVERGING)}, with _r to swap the ends")
        if not 0 < self.opacity <= 1:
            raise UsageError(f"opacity is {self.opacity}, expected above 0 and up to 1")
        if self.outline is not None and not 0 < self.outline < 1:
            raise UsageError(f"outline is {self.outline}, expected a share of the pixels between 0 and 1")
