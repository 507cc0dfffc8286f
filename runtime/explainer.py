"""The driver: one baseline pass an image, then batches of positions through the incremental model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.targets import Score
from kcompiler.runtime.compiled import CompiledModel
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.explanation import Explanation, explained
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import Box, Edges, Stride, check_positions
from kcompiler.runtime.inputs.preprocessing import Picture, read_picture
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import ProgressCallback
from kcompiler.runtime.request import Quality, Request
from kcompiler.runtime.several import Targets, explained_targets


class Explainer(CompiledModel):
    """A compiled model that explains images. Make one with :func:`kcompiler.load`."""

    @property
    def batch(self) -> int:
        """Positions in a batch of the exact engine."""
        return self.exact.batch

    @property
    def device(self) -> str:
        """Where activations are kept: "cuda" or "cpu"."""
        return self.exact.device

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, empty if the bundle has none."""
        return self.targets.labels

    def read_image(self, path: str | Path) -> Picture:
        """Reads a picture file and preprocesses it by the recipe in the bundle; whole numbers where the source takes such.

        Raises:
            ImageError: not a picture that fits, or the bundle has no recipe.
        """
        if self.manifest.preprocessing is None:
            raise ImageError(
                f"{path}: the bundle {self.folder} has no preprocessing to read pictures by; compile with --preprocessing FILE, "
                "or give preprocessed float32 arrays (.npy)"
            )
        picture = read_picture(Path(path), self.manifest.preprocessing)
        picture = replace(picture, tensor=self.manifest.image_element.fitted(picture.tensor))
        if self.manifest.layout == "NHWC":
            picture = replace(picture, tensor=np.ascontiguousarray(picture.tensor.transpose(0, 2, 3, 1)))
        return picture

    def outputs(self, image: npt.ArrayLike, positions: npt.ArrayLike, fill: Fill = 0.0) -> FloatArray:
        """Raw model outputs with the patch at each position.

        Args:
            image: float32, or of the source's own type, [C, H, W] or [1, C, H, W] (channels last if the source takes them so),
                preprocessed.
            positions: whole numbers [N, 2], top-left corners (y, x) in pixels.
            fill: see :meth:`explain`.

        Returns:
            float32 [N, K].

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: a position leaves the image, or the fill does not fit.
        """
        corners = check_positions(positions, self.manifest.shape[1:], self.manifest.patch)
        baseline = self.exact.baseline(self.check_image(image), fill, len(corners))
        return self.exact.evaluate_all(baseline, corners)

    def explain(
        self,
        image: npt.ArrayLike,
        *,
        stride: Stride = 4,
        target: int | str | None = None,
        fill: Fill = 0.0,
        region: Box | None = None,
        edges: Edges = "valid",
        channel: int | None = None,
        quality: Quality = "exact",
        score: Score = "auto",
        budget: float | None = None,
        progress: ProgressCallback | bool | None = None,
        resume: HeatMap | None = None,
    ) -> HeatMap:
        """The heat map of one output over every position of a grid.

        Args:
            image: float32, or of the source's own type, [C, H, W] or [1, C, H, W] (channels last if the source takes them so),
                preprocessed.
            stride: pixels between neighbouring positions, one number or (y, x).
            target: index or label of the class; None takes the one whose score is largest for the uncovered image. Of a model
                that puts out one number by a sigmoid, class 1 is that number and class 0 what is left to one.
            fill: what covers, in model units: one number or one a channel; a picture [C, H, W]; "mean" (of each channel), "blur",
                "noise", "patch-mean", or for prediction difference analysis "marginal" or "conditional"; or what makes
                pictures or patches (:mod:`kcompiler.fills`). Where the source takes whole numbers, numbers that are given must be
                whole, and what is made is rounded.
            region: (top, left, bottom, right) in pixels: only patches inside it. None is the whole image.
            edges: what becomes of the last patch, see :func:`positions.make_grid`.
            channel: the only one that is covered; None covers all.
            quality: "exact"; an SSIM in (0, 1) that the bundle has been tuned for; a :class:`SamplingPlan`; or what the tuner
                returned.
            score: "logit", what the final softmax or sigmoid reads; "output", what the model puts out; "drop", how much the
                first that there is falls. "auto" is the logit where there is one, else the output.
            budget: seconds after which no more positions are evaluated; the map is then what is known by that time. With
                "exact", positions are taken in an order that makes the map good early.
            progress: called with a :class:`Progress` after each batch; True shows a bar.
            resume: an interrupted map of the same image and settings: only what it lacks is computed.

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: a setting out of range.
            Interrupted: on Ctrl-C; carries what was computed so far.
        """
        request = Request(stride, target, fill, region, edges, channel, quality, score, budget, progress, resume)
        return explained(self, image, request)

    def refinements(self, image: npt.ArrayLike, **settings: Any) -> Iterator[HeatMap]:
        """The same, by the same settings, as ever better maps: the best so far after each batch, at the end the whole one."""
        return Explanation(self, image, Request(**settings), anytime=True).maps(every_batch=True)

    def explain_batch(self, images: Iterable[npt.ArrayLike], **settings: Any) -> Iterator[HeatMap]:
        """The heat map of each image, one after the other, by the settings of :meth:`explain`."""
        for image in images:
            yield self.explain(image, **settings)

    def explain_targets(self, image: npt.ArrayLike, targets: Targets, **settings: Any) -> list[HeatMap]:
        """Exact maps of several outputs, from one evaluation of all positions.

        Args:
            image: as for :meth:`explain`, whose other settings apply, but for ``target``, ``quality`` and ``budget``;
                ``resume`` is a list of interrupted maps of some of the targets.
            targets: indices or labels; a number: as many of the largest outputs of the uncovered image, largest first; or "all".

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: a setting out of range, or one that does not apply.
            Interrupted: on Ctrl-C; its ``heat_maps`` are what was computed so far.
        """
        return explained_targets(self, image, targets, Request(**settings))
