"""A report as one HTML file that needs no network: pictures, maps, a slider between them, numbers under the pointer."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kcompiler.runtime.arrays import BoolArray, ByteArray, FloatArray
from kcompiler.runtime.maps.answer import Answer
from kcompiler.runtime.maps.figure import overlaid, shades
from kcompiler.runtime.maps.overlay import Layer, drawn_size, scaled
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.maps.wording import Words

if TYPE_CHECKING:
    import jinja2

LARGEST = 1400
"""Longer side of a picture in a report, in pixels."""
LOSSLESS = 512 * 512
"""Pixels from which pictures are JPEG."""
NUMBERS = ("output", "logit", "largest drop", "at y", "at x", "evaluated")
"""Columns of numbers in the index; the place is the middle of the patch, in the picture's pixels."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the index.

    Attributes:
        name, label: of the picture, and of the class.
        numbers: those of :data:`NUMBERS`; None where there is none.
        caveats: in a few words.
    """

    name: str
    label: str
    numbers: tuple[float | None, ...]
    caveats: str


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A map in a report.

    Attributes:
        name: of the picture.
        picture: uint8 [H, W, 3] or [H, W].
        layer: what is drawn over it.
        scores: float32 [rows, cols], as in the map; ``unoccluded`` and ``score`` are the map's.
        sampled: bool [rows, cols], where the model was evaluated.
        words, label, answer: what the page says of the map.
        details: parameters and versions, by name.
    """

    name: str
    picture: ByteArray
    layer: Layer
    scores: FloatArray
    unoccluded: float
    score: str
    sampled: BoolArray
    words: Words
    label: str
    answer: Answer | None
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The map in the index."""
        drop, view, target = self.layer.drop, self.layer.view, self.answer.target if self.answer is not None else None
        largest: tuple[float | None, ...] = (None, None, None)
        if np.isfinite(drop).any():
            row, col = np.unravel_index(int(np.argmax(np.where(np.isfinite(drop), drop, -np.inf))), drop.shape)
            middle = self.layer.ys[row] + self.layer.patch[0] / 2, self.layer.xs[col] + self.layer.patch[1] / 2
            largest = float(drop[row, col]), *(round(at) for at in view.to_picture(*map(float, middle)))
        output, logit = (None, None) if target is None else (target.output, target.logit)
        caveats = (self.words.approximate.partition(":")[0].lower(), "flat" if self.layer.flat and self.layer.rounding else "",
                   f"{int(self.layer.crossed.sum())} not finite" if self.layer.crossed.any() else "",
                   f"{len(self.words.notes)} warnings" if self.words.notes else "")  # fmt: skip
        numbers = (output, logit, *largest, int(self.sampled.sum()))
        return Row(self.name, self.label, numbers, ", ".join(filter(None, caveats)))

    def content(self, style: Style) -> dict[str, Any]:
        """What the template takes."""
        size = _size(self.layer)
        overlay, notes = overlaid(self.picture, self.layer, style, size)
        low, high = self.layer.limits(style)
        top = self.answer.top if self.answer is not None else ()
        return {
            "name": self.name, "label": self.label, "title": self.words.title, "made": self.words.made,
            "approximate": self.words.approximate, "bar": self.words.bar, "notes": (*notes, *self.words.notes), "size": size,
            "picture": _address(Image.fromarray(scaled(self.picture, size))), "overlay": _address(overlay),
            "shades": _address(Image.fromarray(shades(low, high, style))), "low": low, "high": high, "details": self.details,
            "top": top, "kind": self.answer.kind if self.answer is not None else "",
            "logits": any(each.logit is not None for each in top), "numbers": self._numbers(),
        }  # fmt: skip

    def _numbers(self) -> dict[str, Any]:
        """The raw numbers: JSON has neither NaN nor infinity, so scores, and the uncovered image's behind them, are base64."""
        raw = np.append(self.scores, np.float32(self.unoccluded)).astype("<f4")
        evaluated = None if self.sampled.all() else "".join("01"[int(each)] for each in self.sampled.ravel())
        return {
            "scores": base64.b64encode(raw.tobytes()).decode(), "kind": self.score, "sampled": evaluated,
            "ys": self.layer.ys.tolist(), "xs": self.layer.xs.tolist(), "patch": self.layer.patch,
            "view": asdict(self.layer.view),
        }  # fmt: skip


def page(
    title: str, rows: Sequence[Row], maps: Iterable[Shown], style: Style, failures: Sequence[Mapping[str, str]] = ()
) -> Iterator[str]:
    """The parts of a page of maps, with an index if ``rows`` are several; ``maps`` are taken one by one."""
    given = [any(row.numbers[column] is not None for row in rows) for column in range(len(NUMBERS))]
    columns = ("picture", "class", *compress(NUMBERS, given), "caveats")
    css, script = (_text(name) for name in ("page.css", "page.mjs"))
    return _environment().get_template("page.html.j2").generate(
        title=title, rows=rows, maps=(each.content(style) for each in maps), failures=failures, columns=columns, given=given,
        style=_safe(css),
        style_hash=_hash(css), script=_safe(script), script_hash=_hash(script),
    )  # fmt: skip


def framed(html: str) -> str:
    """A page as a frame of its own, for a notebook."""
    return _environment().get_template("frame.html.j2").render(page=html)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    names = ("page.html.j2", "frame.html.j2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.DictLoader({name: _text(name) for name in names}),
    )  # fmt: skip
    environment.filters["short"] = _short
    return environment


def _text(name: str) -> str:
    return (files("kcompiler.runtime.maps") / "report" / name).read_text(encoding="utf-8")


def _safe(text: str) -> Any:
    """Own code, which is not escaped."""
    from markupsafe import Markup

    return Markup(text)


def _hash(text: str) -> str:
    """The source of a Content-Security-Policy for a script or style of this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}".replace("-", "\N{MINUS SIGN}")


def _size(layer: Layer) -> tuple[int, int]:
    height, width = drawn_size(*layer.view.picture)
    factor = min(LARGEST / max(height, width), 1.0)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _address(picture: Image.Image) -> str:
    """A picture as a data address."""
    content = io.BytesIO()
    kind = "png" if picture.width * picture.height <= LOSSLESS else "jpeg"
    picture.convert("RGB").save(content, format=kind.upper(), **({"quality": 90} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
