"""A heat map: raw scores, where the model was evaluated, and the settings of the explanation."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.maps import overlay
from kcompiler.runtime.maps.aggregate import Method, to_pixels


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """Scores of a target by the position of the patch that covers the image.

    Attributes:
        scores: float32 [rows, cols], raw, with the patch at (ys[row], xs[col]); NaN where neither evaluated nor estimated.
        unoccluded: the score of the uncovered image.
        score: "output"; "logit", the input of the final softmax or sigmoid; or "drop", the decrease against ``unoccluded``.
        target: index of the class; ``label`` is its name, or the index as text.
        ys, xs: int64 [rows], [cols]: the patch's top-left corner, pixels.
        patch: (height, width), pixels.
        image: (height, width) of the image, pixels.
        seconds: elapsed time, with the baseline pass.
        sampled: bool [rows, cols], where the model was evaluated; other scores are estimates.
        plan: the sampling plan that chose the positions.
        complete: whether the plan ran to its end.
        warnings: caveats for a reader of the map.
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
    sampled: BoolArray
    score: str = "output"
    plan: SamplingPlan = EVERYTHING
    complete: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def evaluated(self) -> int:
        """Positions at which the model was evaluated."""
        return int(self.sampled.sum())

    @property
    def exact(self) -> bool:
        """Whether every position was evaluated, by the exact variant."""
        return bool(self.sampled.all()) and self.plan.variant == EVERYTHING.variant

    @property
    def drop(self) -> FloatArray:
        """Decrease of the score when covered, [rows, cols]: positive where the covered pixels support the target."""
        return self._drop(self.scores)

    def _drop(self, scores: FloatArray) -> FloatArray:
        return scores if self.score == "drop" else np.float32(self.unoccluded) - scores

    def upsample(self, method: Method = "linear") -> FloatArray:
        """``scores`` at image size, [H, W]; see :func:`aggregate.to_pixels` for the methods."""
        return to_pixels(self.scores, self.ys, self.xs, self.patch, self.image, method)

    def overlay(self, picture: npt.ArrayLike | None = None) -> Image.Image:
        """The drop of the target over ``picture`` (uint8 [H, W, 3] or [H, W]), with a colour bar and the label."""
        shown = np.full((*self.image, 3), 255, np.uint8) if picture is None else np.asarray(picture)
        unit = "drop when covered" if self.score == "drop" else f"drop of the {self.score} when covered"
        return overlay.render(shown, self._drop(self.upsample()), self.title, unit)

    @property
    def title(self) -> str:
        return f"{self.label}: {self.unoccluded:.4g} uncovered"

    def record(self) -> dict[str, object]:
        """Everything but the scores, as values that JSON can hold."""
        return {
            "target": self.target,
            "label": self.label,
            "unoccluded": self.unoccluded,
            "ys": self.ys.tolist(),
            "xs": self.xs.tolist(),
            "patch": list(self.patch),
            "image": list(self.image),
            "seconds": self.seconds,
            "score": self.score,
            "evaluated": self.evaluated,
            "sampled": None if self.sampled.all() else np.flatnonzero(self.sampled).tolist(),
            "plan": self.plan.model_dump(),
            "exact": self.exact,
            "complete": self.complete,
            "warnings": list(self.warnings),
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
        """Writes ``name``.npy (raw scores), ``name``.png (overlay) and ``name``.json (record), none of them half-written.

        The record is written last, and names the SHA-256 digests of the others: it is never beside files of another map.

        Args:
            directory: created if absent.
            name: stem of the three files.
            picture: background of the overlay, uint8 [H, W, 3] or [H, W].
            details: further entries for the record.
            force: replace existing files.

        Raises:
            UsageError: a file exists and ``force`` is not given.
        """
        scores, drawing = io.BytesIO(), io.BytesIO()
        np.save(scores, self.scores)
        self.overlay(picture).save(drawing, format="PNG")
        contents = {".npy": scores.getvalue(), ".png": drawing.getvalue()}
        digests = {"sha256": {suffix: hashlib.sha256(data).hexdigest() for suffix, data in contents.items()}}
        contents[".json"] = json.dumps({**self.record(), **(details or {}), **digests}, indent=1).encode()
        return replace_files(Path(directory), {name + suffix: data for suffix, data in contents.items()}, force=force)

    @classmethod
    def load(cls, record: str | Path) -> HeatMap:
        """Reads a map that :meth:`save` wrote, from its record (.json) and the scores (.npy) in the same folder.

        Raises:
            ImageError: the files are not those of a map, or are damaged.
        """
        path = Path(record)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            data = path.with_suffix(".npy").read_bytes()
            if "sha256" in content and hashlib.sha256(data).hexdigest() != content["sha256"][".npy"]:
                raise ValueError("the scores beside it are of another map")
            scores = np.load(io.BytesIO(data), allow_pickle=False)
            if scores.dtype != np.float32 or scores.shape != (len(content["ys"]), len(content["xs"])):
                raise ValueError(f"scores are {scores.dtype} {scores.shape}")
            sampled = np.full(scores.shape, content["sampled"] is None)
            sampled.flat[np.asarray(content["sampled"] or (), np.int64)] = True
            return cls(
                scores=scores, unoccluded=float(content["unoccluded"]), target=content["target"], label=content["label"],
                ys=np.array(content["ys"]), xs=np.array(content["xs"]), patch=tuple(content["patch"]),
                image=tuple(content["image"]), seconds=float(content["seconds"]), sampled=sampled, score=content["score"],
                plan=SamplingPlan.model_validate(content["plan"]), complete=content["complete"],
                warnings=tuple(content["warnings"]),
            )  # fmt: skip
        except (OSError, ValueError, EOFError, KeyError, TypeError, IndexError) as error:
            raise ImageError(f"{path}: is no heat map that can be read, or damaged ({error})") from error

    def _repr_html_(self) -> str:
        drawing = io.BytesIO()
        self.overlay().save(drawing, format="PNG")
        rows, cols = self.scores.shape
        source = base64.b64encode(drawing.getvalue()).decode()
        evaluated = "" if self.sampled.all() else f", {self.evaluated} of them evaluated"
        caption = f"{html.escape(self.title)}; {rows} x {cols} positions{evaluated}, {self.seconds:.1f} s"
        return f'<figure><img src="data:image/png;base64,{source}"><figcaption>{caption}</figcaption></figure>'
