"""A heat map: raw scores, where they were measured, and what was explained."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kcompiler.runtime import overlay
from kcompiler.runtime.files import replace_files
from kcompiler.runtime.positions import IntArray

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """How one output of the model moves when a patch covers the image.

    Attributes:
        scores: float32 [rows, cols], the raw output with the patch at (ys[row], xs[col]); NaN where not evaluated.
        unoccluded: the same output for the uncovered image.
        target: index of the output; ``label`` its name, or the index as text.
        ys, xs: int64 [rows], [cols]: the patch's top-left corner, pixels.
        patch: (height, width), pixels.
        image: (height, width) of the image, pixels.
        seconds: time it took, the baseline pass included.
        evaluated: positions at which the model was evaluated.
    """

    scores: FloatArray
    unoccluded: float
    target: int
    label: str
    ys: IntArray
    xs: IntArray
    patch: tuple[int, int]
    image: tuple[int, int]
    seconds: float
    evaluated: int

    @property
    def drop(self) -> FloatArray:
        """How much the output falls when covered, [rows, cols]: positive where the image speaks for the target."""
        return np.float32(self.unoccluded) - self.scores

    @property
    def complete(self) -> bool:
        return self.evaluated == self.scores.size

    def upsample(self) -> FloatArray:
        """``scores`` at image size, [H, W]: linear between the patches' centres, constant beyond the outermost."""
        centres_y = self.ys + (self.patch[0] - 1) / 2
        centres_x = self.xs + (self.patch[1] - 1) / 2
        pixels_y, pixels_x = (np.arange(size) for size in self.image)
        rows = np.stack([np.interp(pixels_x, centres_x, row) for row in self.scores])
        columns = [np.interp(pixels_y, centres_y, column) for column in rows.T]
        return np.stack(columns, axis=1).astype(np.float32)

    def overlay(self, picture: npt.ArrayLike | None = None) -> Image.Image:
        """The drop of the target over ``picture`` (uint8 [H, W, 3] or [H, W]), with a colour bar and the label."""
        shown = np.full((*self.image, 3), 255, np.uint8) if picture is None else np.asarray(picture)
        return overlay.render(shown, np.float32(self.unoccluded) - self.upsample(), self.title)

    @property
    def title(self) -> str:
        return f"{self.label}: {self.unoccluded:.4g} uncovered"

    def record(self) -> dict[str, object]:
        """Everything but the scores, as JSON-ready values."""
        return {
            "target": self.target,
            "label": self.label,
            "unoccluded": self.unoccluded,
            "ys": self.ys.tolist(),
            "xs": self.xs.tolist(),
            "patch": list(self.patch),
            "image": list(self.image),
            "seconds": self.seconds,
            "evaluated": self.evaluated,
            "complete": self.complete,
        }

    def save(
        self,
        directory: str | Path,
        name: str = "heatmap",
        *,
        picture: npt.ArrayLike | None = None,
        details: Mapping[str, object] | None = None,
        force: bool = False,
    ) -> list[Path]:
        """Writes ``name``.npy (raw scores), ``name``.png (overlay) and ``name``.json (record), all or none.

        Args:
            directory: made if absent.
            name: stem of the three files.
            picture: what to draw over, uint8 [H, W, 3].
            details: further entries for the record.
            force: replace files that exist.

        Raises:
            UsageError: a file exists and ``force`` is not given.
        """
        scores, drawing = io.BytesIO(), io.BytesIO()
        np.save(scores, self.scores)
        self.overlay(picture).save(drawing, format="PNG")
        record = json.dumps({**self.record(), **(details or {})}, indent=1).encode()
        contents = {".npy": scores.getvalue(), ".png": drawing.getvalue(), ".json": record}
        return replace_files(Path(directory), {name + suffix: data for suffix, data in contents.items()}, force=force)

    def _repr_html_(self) -> str:
        drawing = io.BytesIO()
        self.overlay().save(drawing, format="PNG")
        rows, cols = self.scores.shape
        source = base64.b64encode(drawing.getvalue()).decode()
        caption = f"{html.escape(self.title)}; {rows} x {cols} positions, {self.seconds:.1f} s"
        return f'<figure><img src="data:image/png;base64,{source}"><figcaption>{caption}</figcaption></figure>'
