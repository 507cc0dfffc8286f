"""The picture of a map as a whole: title, the overlay at the picture's own pixels, colour bar, notes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kcompiler.runtime.arrays import ByteArray, FloatArray
from kcompiler.runtime.maps.lettering import DPI, POINT, Column, write
from kcompiler.runtime.maps.overlay import Layer, check_picture, drawn_size, painted, seen_box
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.maps.wording import UNREACHED, UNSEEN, Words, crossed_of, flat_of, joined

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

COMFORTABLE = 640
"""Longer side of a picture, in pixels, around which text has its usual size: it grows with larger ones."""
CONTOURED = 1024
"""Pixels a side from which contours are drawn of every n-th pixel."""
NARROWEST, LOWEST = 480, 200
"""Least width and height for the picture and what is beside it, at the usual size of text."""


def render(picture: ByteArray, layer: Layer, words: Words, style: Style) -> Image.Image:
    """Draws a map over its picture, at the picture's own size within limits, with words, colour bar and notes.

    Raises:
        UsageError: the picture is not uint8, or of another size than the layer's view says.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(picture, layer.view)
    size = drawn_size(*layer.view.picture)
    surface = layer.surface(size)
    scale = max(max(size) / COMFORTABLE, 1.0)
    margin, side = 12 * scale, 120 * scale
    width = max(size[1] + side, NARROWEST * scale)
    head, foot = Column(width, POINT * scale), Column(width, POINT * scale)
    notes = [head.add(words.title, 12, "bold")]
    head.add(words.made, 8.5)
    head.add(words.approximate, 10, "bold")
    notes += [*_seen_notes(layer, surface), *words.notes]
    for note in joined(notes):
        foot.add(note, 8.5)
    body = max(size[0], LOWEST * scale)
    total = (round(head.height + body + foot.height + 4 * margin), round(width + 2 * margin))
    figure = Figure(figsize=(total[1] / DPI, total[0] / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    write(figure, head, margin, margin, total)
    top = round(head.height + 2 * margin)
    corner = top + round((body - size[0]) / 2), round(margin)
    _draw(figure.add_axes(_place(*corner, *size, total)), layer, surface, style, scale)
    bar_left = round(margin + size[1] + margin)
    _bar(figure, _place(top, bar_left, round(body), round(14 * scale), total), layer, words.bar, style, scale)
    write(figure, foot, margin, top + body + margin, total)
    return _over(painted(picture, layer, surface, style), corner, canvas)


def overlaid(picture: ByteArray, layer: Layer, style: Style, size: tuple[int, int]) -> tuple[Image.Image, tuple[str, ...]]:
    """The overlay at ``size`` without words, and what is to be noted of it.

    Raises:
        UsageError: the picture is not uint8, or of another size than the layer's view says.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(picture, layer.view)
    surface, scale = layer.surface(size), max(max(size) / COMFORTABLE, 1.0)
    figure = Figure(figsize=(size[1] / DPI, size[0] / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    _draw(figure.add_axes((0, 0, 1, 1)), layer, surface, style, scale)
    return _over(painted(picture, layer, surface, style), (0, 0), canvas), joined(_seen_notes(layer, surface))


def shades(low: float, high: float, style: Style) -> ByteArray:
    """The colours from ``high``, at the top, to ``low``, uint8 [256, 1, 3]."""
    import matplotlib as mpl

    strongest = max(-low, high)
    colours = mpl.colormaps[style.colours](np.linspace(high / strongest / 2 + 0.5, low / strongest / 2 + 0.5, 256))
    rounded: ByteArray = np.rint(255 * colours[:, None, :3]).astype(np.uint8)
    return rounded


def _over(pixels: ByteArray, corner: tuple[int, int], canvas: FigureCanvasAgg) -> Image.Image:
    """The canvas's drawing over ``pixels``, whose corner lies at (top, left), on white; pixels stay what they are."""
    canvas.figure.patch.set_alpha(0)
    drawing = io.BytesIO()
    canvas.print_raw(drawing)  # type: ignore[no-untyped-call]
    drawn = Image.frombytes("RGBA", canvas.get_width_height(), drawing.getvalue())
    below = Image.new("RGBA", drawn.size, "white")
    below.paste(Image.fromarray(pixels), corner[::-1])
    return Image.alpha_composite(below, drawn).convert("RGB")


def _seen_notes(layer: Layer, surface: FloatArray) -> list[str]:
    top, left, bottom, right = seen_box(layer.view, surface.shape)
    unseen = (top, left, bottom, right) != (0, 0, *surface.shape)
    inside, around = np.isnan(surface[top:bottom, left:right]).any(), bool(layer.crossed.any())
    return [
        flat_of(layer.extent, layer.rounding) if layer.flat and layer.rounding and np.isfinite(layer.drop).any() else "",
        crossed_of(int(layer.crossed.sum())) if around else "",
        UNSEEN if unseen else "",
        UNREACHED if inside else "",
    ]


def _place(top: int, left: int, height: int, width: int, total: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box in pixels from the top left, as matplotlib wants it."""
    return left / total[1], 1 - (top + height) / total[0], width / total[1], height / total[0]


def _draw(axes: Axes, layer: Layer, surface: FloatArray, style: Style, scale: float) -> None:
    """What lies over the pixels: hatches where the model did not see, crosses, where patches end, and the outline."""
    height, width = surface.shape
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    top, left, bottom, right = seen_box(layer.view, surface.shape)
    for box in ((0, 0, top, width), (bottom, 0, height, width), (top, 0, bottom, left), (top, right, bottom, width)):
        _hatch(axes, box)
    y, x = height / layer.view.picture[0], width / layer.view.picture[1]
    for row, col in np.argwhere(layer.crossed):
        corner = float(layer.ys[row]), float(layer.xs[col])
        first, last = (
            layer.view.to_picture(*corner),
            layer.view.to_picture(corner[0] + layer.patch[0], corner[1] + layer.patch[1]),
        )
        axes.plot(
            (first[1] + last[1]) / 2 * x, (first[0] + last[0]) / 2 * y, marker="x", color="#ffd400", markersize=5 * scale,
            markeredgewidth=1.5 * scale,
        )  # fmt: skip
    _frame_reached(axes, surface, (top, left, bottom, right), scale)
    if style.outline is not None and not layer.flat:
        _outline(axes, surface, style.outline, scale)


def _hatch(axes: Axes, box: tuple[int, int, int, int]) -> None:
    from matplotlib.patches import Rectangle

    top, left, bottom, right = box
    if bottom > top and right > left:
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, hatch="//", edgecolor=(1, 1, 1, 0.4), linewidth=0)
        )


def _outline(axes: Axes, surface: FloatArray, share: float, scale: float) -> None:
    """A contour around the share of the pixels with the largest drops, those above 0."""
    known = surface[np.isfinite(surface)]
    level = float(np.quantile(known, 1 - share)) if len(known) else 0.0
    if not 0 < level < float(known.max(initial=0)):
        return
    step = max(max(surface.shape) // CONTOURED, 1)
    part = np.ma.masked_invalid(surface[::step, ::step])
    ys, xs = ((np.arange(count) * step + 0.5) for count in part.shape)
    for colour, width in (("white", 3.0), ("black", 1.4)):
        axes.contour(xs, ys, part, levels=[level], colors=colour, linewidths=width * scale)


def _frame_reached(axes: Axes, surface: FloatArray, seen: tuple[int, int, int, int], scale: float) -> None:
    """A dashed line where, in what the model sees, patches end: beyond it no colour does not mean no effect."""
    top, left, bottom, right = seen
    step = max(max(surface.shape) // CONTOURED, 1)
    reached = np.isfinite(surface[top:bottom:step, left:right:step]).astype(np.float32)
    if min(reached.shape) < 2 or not 0 < reached.mean() < 1:
        return
    ys, xs = (start + np.arange(count) * step + 0.5 for start, count in zip((top, left), reached.shape, strict=True))
    for colour, style in (("black", "solid"), ("white", "dashed")):
        axes.contour(xs, ys, reached, levels=[0.5], colors=colour, linestyles=style, linewidths=1.1 * scale)


def _bar(figure: Any, place: tuple[float, float, float, float], layer: Layer, label: str, style: Style, scale: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    low, high = layer.limits(style)
    finite = layer.drop[np.isfinite(layer.drop)]
    shown = shades(low, high, style)[::-1, 0] / 255
    beyond = bool(len(finite) and finite.min() < low), bool(len(finite) and finite.max() > high)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    axes = figure.add_axes(place)
    bar = figure.colorbar(ScalarMappable(Normalize(low, high), ListedColormap(shown)), cax=axes, extend=extend)
    bar.ax.tick_params(labelsize=8.5 * scale, width=scale, length=3.5 * scale)
    bar.ax.yaxis.get_offset_text().set_fontsize(8.5 * scale)
    bar.outline.set_linewidth(0.8 * scale)
    bar.set_label(label, fontsize=9 * scale)
