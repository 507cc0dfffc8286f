"""Lines of text on a figure, wrapped to a width."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kcompiler.runtime.maps.fonts import USUAL, Readable, readable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
POINT = DPI / 72
"""Pixels a point."""


@dataclass(slots=True)
class Column:
    """Lines of text that grow downwards.

    Attributes:
        width: pixels that a line may take.
        unit: pixels of a text's point of size 1.
        lines: text, size in points, weight, fonts.
    """

    width: float
    unit: float
    lines: list[tuple[str, float, str, tuple[str, ...]]] = field(default_factory=list)

    def add(self, text: str, size: float, weight: str = "normal") -> str:
        """Adds a text, wrapped; returns what is to be noted of its fonts."""
        shown = readable(text)
        if shown.text:
            limit = max(int(self.width / (self._extent(shown, size, weight) / len(shown.text))), 8)
            for line in textwrap.wrap(shown.text, limit):
                self.lines.append((line, size, weight, shown.families))
        return shown.note

    def _extent(self, shown: Readable, size: float, weight: str) -> float:
        """Width of a text on one line, in pixels."""
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath

        if len(shown.families) > 1:  # a path has one font: wide letters
            return float(len(shown.text) * size * self.unit)
        letters = shown.text.replace("$", "S")  # which would begin a formula
        path = TextPath((0, 0), letters, size=size, prop=FontProperties(family=[USUAL], weight=weight), usetex=False)
        return max(float(path.get_extents().width) * self.unit, 1.0) * 1.03

    @property
    def height(self) -> float:
        return sum(1.35 * size * self.unit for _, size, *_ in self.lines)


def write(figure: Figure, column: Column, left: float, top: float, total: tuple[int, int]) -> None:
    """Writes a column from its top left corner in a figure of ``total`` (height, width) pixels."""
    y = top
    for text, size, weight, families in column.lines:
        figure.text(
            left / total[1], 1 - y / total[0], text, fontsize=size * column.unit / POINT, fontweight=weight, va="top",
            family=list(families), parse_math=False,
        )  # fmt: skip
        y += 1.35 * size * column.unit
