"""A heat map: raw scores, where the model was evaluated, and the settings of the explanation."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.exactness.compare import OUTPUT_SHARE
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps import wording
from kcompiler.runtime.maps.aggregate import Method, to_pixels
from kcompiler.runtime.maps.answer import Answer
from kcompiler.runtime.maps.figure import render
from kcompiler.runtime.maps.overlay import Layer
from kcompiler.runtime.maps.page import Shown, framed, page
from kcompiler.runtime.maps.stored import read_map, write_map
from kcompiler.runtime.maps.style import Style

USUAL = Style()


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
        answer: what the model says of the uncovered image; None if that is not known.
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
    answer: Answer | None = None

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

    def overlay(self, picture: npt.ArrayLike | None = None, *, view: View | None = None, style: Style = USUAL) -> Image.Image:
        """The drop of the target over ``picture`` (uint8 [H, W, 3] or [H, W]), with a colour bar, and words on what it is.

        Args:
            picture: None draws on white.
            view: where the model's pixels lie in the picture, as :attr:`Picture.view` is for :attr:`Picture.source`; None: they
                are the picture's.
            style: colours, their scale, opacity, outline.

        Raises:
            UsageError: the picture's type or size is another.
        """
        view = view or View.whole(self.image)
        shown = np.full(view.picture, 255, np.uint8) if picture is None else np.asarray(picture)
        return render(shown, self.layer(view), self.words, style)

    def over(self, view: View) -> FloatArray:
        """The drop at each pixel of the picture that is seen by ``view``, float32 [height, width]; NaN where no patch reached."""
        return self.layer(view).surface(view.picture)

    def layer(self, view: View) -> Layer:
        """What is drawn over a picture that is seen by ``view``.

        Raises:
            UsageError: the view is of another image.
        """
        if view.model != self.image:
            raise UsageError(f"view is of an image of {list(view.model)} pixels, expected the map's {list(self.image)}")
        crossed = self.sampled & ~np.isfinite(self.drop)
        return Layer(self.drop, self.ys, self.xs, self.patch, view, crossed, self.rounding)

    @property
    def rounding(self) -> float:
        """The largest range that rounding alone may make: two scores are off. 0 if that is not known."""
        if self.answer is None:
            return 0.0
        scores = self.drop - np.float32(self.unoccluded) if self.score == "drop" else self.scores
        largest = np.abs(scores[np.isfinite(scores)]).max(initial=0)
        return 2 * max(OUTPUT_SHARE * float(largest), self.answer.off_by)

    @property
    def words(self) -> wording.Words:
        """The text of the overlay."""
        made = wording.made_of(self.score, self.patch, self.image, (len(self.ys), len(self.xs)))
        approximate = wording.approximate_of(self.plan, self.evaluated, self.scores.size, complete=self.complete)
        return wording.Words(self.title, made, approximate, wording.bar_of(self.score), self.warnings)

    @property
    def title(self) -> str:
        """The class, and what the model says of it uncovered."""
        said = f"{self.unoccluded:.4g}" if self.answer is None else self.answer.text
        return f"{self.label}: {said} uncovered"

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
            "answer": None if self.answer is None else asdict(self.answer),
        }

    def save(
        self,
        directory: str | Path,
        name: str = "heatmap",
        *,
        picture: npt.ArrayLike | None = None,
        view: View | None = None,
        style: Style = USUAL,
        details: Mapping[str, object] | None = None,
        files: Mapping[str, bytes] | None = None,
        force: bool = False,
    ) -> list[Path]:
        """Writes ``name``.npy (raw scores), ``name``.png (overlay) and ``name``.json (record), none of them half-written.

        The record is written last, and names the SHA-256 digests of the others: it is never beside files of another map. What
        it replaces goes with all its files (docs/faults.md).

        Args:
            directory: created if absent.
            name: stem of the files.
            picture, view, style: those of :meth:`overlay`; the view is in the record.
            details: further entries for the record.
            files: contents of further files of the map, by the ends of their names (".nii.gz").
            force: replace existing files.

        Raises:
            UsageError: a file exists and ``force`` is not given.
        """
        drawing = self.overlay(picture, view=view, style=style)
        record = {**self.record(), "view": None if view is None else asdict(view), **(details or {})}
        return write_map(Path(directory), name, self.scores, drawing, record, files=files, force=force)

    @classmethod
    def load(cls, record: str | Path) -> HeatMap:
        """Reads a map that :meth:`save` wrote, from its record (.json) and the scores (.npy) in the same folder.

        Raises:
            ImageError: the files are not those of a map, or are damaged.
        """
        return cls(**read_map(Path(record)))

    def to_html(
        self,
        picture: npt.ArrayLike | None = None,
        *,
        view: View | None = None,
        style: Style = USUAL,
        name: str = "heat map",
        details: Mapping[str, object] | None = None,
    ) -> str:
        """The map over its picture as a page of its own, with a slider between them and the numbers under the pointer.

        Args:
            picture, view, style: those of :meth:`overlay`.
            name: of the picture.
            details: parameters and versions, to be shown.
        """
        shown = self.in_report(name, picture, view, details)
        return "".join(page(f"{name}: {self.label}", [shown.row], [shown], style))

    def in_report(
        self, name: str, picture: npt.ArrayLike | None, view: View | None, details: Mapping[str, object] | None = None
    ) -> Shown:
        """What a report shows of the map; see :meth:`to_html`."""
        view = view or View.whole(self.image)
        pixels = np.full(view.picture, 255, np.uint8) if picture is None else np.asarray(picture)
        return Shown(
            name, pixels, self.layer(view), self.scores, self.unoccluded, self.score, self.sampled, self.words, self.label,
            self.answer, details or {},
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return framed(self.to_html())

    def _repr_png_(self) -> bytes:
        drawing = io.BytesIO()
        self.overlay().save(drawing, format="PNG")
        return drawing.getvalue()
