"""Drawing a heat map over its picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from kcompiler.runtime.arrays import ByteArray, FloatArray
from kcompiler.runtime.errors import UsageError


def render(picture: ByteArray, drop: FloatArray, title: str, unit: str) -> Image.Image:
    """Draws ``drop`` over the picture: red where covering lowers the score, blue where it raises it.

    Args:
        picture: uint8 [H, W] or [H, W, 3].
        drop: float32 [H, W] in units of the score; NaN is transparent.
        title: text above the map.
        unit: text beside the colour bar.

    Raises:
        UsageError: the picture is not uint8, or its size differs from the map's.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if picture.dtype != np.uint8 or picture.shape not in (drop.shape, (*drop.shape, 3)):
        raise UsageError(
            f"picture is {picture.dtype} {list(picture.shape)}, expected uint8 of the map's size {list(drop.shape)}, gray or RGB"
        )
    figure = Figure(figsize=(6.4, 5.0), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    gray = picture if picture.ndim == 2 else np.rint(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    axes.imshow(gray, cmap="gray", vmin=0, vmax=255)
    limit = float(np.nanmax(np.abs(drop), initial=0.0)) or 1.0
    strength = np.nan_to_num(np.clip(np.abs(drop) / limit, 0, 1)) * 0.75
    heat = axes.imshow(drop, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=strength)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, parse_math=False)
    bar = figure.colorbar(heat, ax=axes, shrink=0.9)
    assert bar.solids is not None
    bar.solids.set_alpha(1.0)
    bar.set_label(unit, fontsize=9)
    drawing = io.BytesIO()
    canvas.print_png(drawing)  # type: ignore[no-untyped-call]
    return Image.open(drawing).convert("RGB")
