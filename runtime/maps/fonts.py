"""Fonts for labels in any script: those installed that have the glyphs, or else the text in another spelling, which says so."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

USUAL = "DejaVu Sans"
"""Comes with matplotlib."""
BOXES = "Last Resort"
"""Has a box for everything, and letters for nothing."""
SHAPED = (3, 11)
"""The first matplotlib that joins and orders the letters of scripts which need that."""


@dataclass(frozen=True, slots=True)
class Readable:
    """A text that can be drawn.

    Attributes:
        text: the text, or what stands for it.
        families: names of the fonts to draw it with, in order of preference.
        note: what was changed, for the reader; empty if nothing was.
    """

    text: str
    families: tuple[str, ...] = (USUAL,)
    note: str = ""


def readable(text: str) -> Readable:
    """The text with fonts for all of its characters. What has no glyph is written by its code point, and noted."""
    text = unicodedata.normalize("NFC", text)
    families, missing = [USUAL], {one for one in text if not one.isspace() and ord(one) not in _glyphs(USUAL)}
    missing |= {one for one in text if unicodedata.category(one)[0] == "C" or one in "\n\r\t\v\f"}
    for family in _families() if missing else ():
        if found := {one for one in missing if ord(one) in _glyphs(family) and unicodedata.category(one)[0] != "C"}:
            families.append(family)
            missing -= found
    missing |= set(filter(_wants_shaping, text)) if _matplotlib() < SHAPED else set()
    if not missing:
        return Readable(text, tuple(families))
    spelt = "".join(f"\\u{{{ord(one):x}}}" if one in missing else one for one in text)
    return Readable(spelt, tuple(families), f"Written by code points (\\u{{...}}): no font here has {_scripts(missing)}.")


def _scripts(characters: Iterable[str]) -> str:
    """The scripts of characters, by the first words of their names."""
    names = [unicodedata.name(one, "CONTROL CHARACTERS").replace("CJK UNIFIED", "CHINESE").split() for one in characters]
    return ", ".join(sorted({name[0].capitalize() for name in names}))


def _wants_shaping(character: str) -> bool:
    """Whether a character's form or place depends on its neighbours: from right to left, or with marks that combine."""
    return unicodedata.bidirectional(character) in ("R", "AL", "AN") or unicodedata.category(character) == "Mc"


def _matplotlib() -> tuple[int, int]:
    import matplotlib as mpl

    major, minor, *_ = mpl.__version__.split(".")
    return int(major), int(minor)


@cache
def _families() -> dict[str, str]:
    """The files of installed fonts but the usual one, by name: upright sans first."""
    from matplotlib.font_manager import fontManager

    fonts = [
        font for font in fontManager.ttflist if font.style == "normal" and not font.name.startswith((BOXES, USUAL, "cm", "STIX"))
    ]
    ordered = sorted(fonts, key=lambda font: ("Sans" not in font.name, "Mono" in font.name, font.name))
    return {font.name: font.fname for font in ordered}


@cache
def _glyphs(family: str) -> frozenset[int]:
    """Code points that a font has glyphs for."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        return frozenset(
            get_font(findfont(FontProperties(family=[USUAL])) if family == USUAL else _families()[family]).get_charmap()
        )
    except (OSError, RuntimeError, ValueError):
        return frozenset()
