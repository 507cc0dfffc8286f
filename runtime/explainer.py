"""The driver: a baseline pass per image, then batches of positions through the incremental model."""

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
from kcompiler.runtime.inputs.selection import Selection
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import ProgressCallback
from kcompiler.runtime.request import Quality, Request
from kcompiler.runtime.several import Targets, explained_targets


class Explainer(CompiledModel):
    """A compiled model that explains images; :func:`kcompiler.load` creates it."""

    @property
    def batch(self) -> int:
        """Positions in a batch of the exact engine."""
        return self.exact.batch

    @property
    def device(self) -> str:
        """The device that holds the cached activations: "cuda" or "cpu"."""
        return self.exact.device

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, empty if the bundle has none."""
        return self.targets.labels

    def read_image(
        self,
        path: str | Path,
        *,
        window: tuple[float, float] | None = None,
        frame: int | None = None,
        axis: int | None = None,
        index: int | None = None,
    ) -> Picture:
        """Reads a picture file and preprocesses it by the recipe in the bundle, to values of the source's element type.

        Args:
            path: a picture, DICOM, NIfTI, or pixels as an array (.npy, .npz).
            window: (centre, width) of the values that are shown, in the file's units; None takes the recipe's, or the file's.
            frame: of a file with several, from 0.
            axis, index: which slice of a volume, from 0; by default the middle one along its last axis.

        Raises:
            ImageError: not a picture that the recipe can read, or the bundle has no recipe.
            UsageError: ``window``, ``frame``, ``axis`` or ``index`` is out of its range.
        """
        if self.manifest.preprocessing is None:
            raise ImageError(
                f"{path}: the bundle {self.folder} has no preprocessing to read pictures by; compile with --preprocessing FILE, "
                "or give preprocessed float32 arrays (.npy)"
            )
        picture = read_picture(Path(path), self.manifest.preprocessing, Selection(window, frame, axis, index))
        picture = replace(picture, tensor=self.manifest.image_element.fitted(picture.tensor))
        if self.manifest.layout == "NHWC":
            picture = replace(picture, tensor=np.ascontiguousarray(picture.tensor.transpose(0, 2, 3, 1)))
        return picture

    def outputs(self, image: npt.ArrayLike, positions: npt.ArrayLike, fill: Fill = 0.0) -> FloatArray:
        """Raw model outputs with the patch at each position.

        Args:
            image: float32, or of the source's element type, [C, H, W] or [1, C, H, W] (channels last if the source is NHWC),
                preprocessed.
            positions: whole numbers [N, 2], top-left corners (y, x) in pixels.
            fill: see :meth:`explain`.

        Returns:
            float32 [N, K].

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: the patch lies outside the image at a position, or the fill does not fit.
        """
        corners = check_positions(positions, self.manifest.shape[1:], self.manifest.patch)
        self.check_unaltered()
        baseline = self.exact.baseline(self.check_image(image), fill, len(corners))
        outputs = self.exact.evaluate_all(baseline, corners)
        self.check_unaltered()
        return outputs

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
        """The heat map of a class over a grid of positions.

        Args:
            image: float32, or of the source's element type, [C, H, W] or [1, C, H, W] (channels last if the source is NHWC),
                preprocessed.
            stride: pixels between neighbouring positions, a number or (y, x).
            target: index or label of the class; None takes the class with the largest score for the uncovered image. A model
                with a single sigmoid output p has two classes: p scores class 1, and 1 - p class 0.
            fill: the content of the patch, in model units: a number, or a number per channel; a picture [C, H, W]; "mean" (of
                each channel), "blur", "noise", "patch-mean", or for prediction difference analysis "marginal" or "conditional";
                or an object that makes pictures or patches (:mod:`kcompiler.fills`). Where the source takes whole numbers, the
                caller's numbers must be whole, and computed ones are rounded.
            region: (top, left, bottom, right) in the model's pixels: only patches inside it. None is the whole image.
            edges: how the grid ends at the edges, see :func:`positions.make_grid`.
            channel: index of the only channel to cover; None covers all.
            quality: "exact"; an SSIM in (0, 1] that the bundle has been tuned for; a :class:`SamplingPlan`; or the result of
                the tuner.
            score: "logit", the input of the final softmax or sigmoid; "output", the model's output; "drop", the decrease of the
                logit if the model has logits, else of the output. "auto" is the logit if the model has logits, else the output.
            budget: seconds after which no more positions are evaluated; the map then estimates the others. With "exact",
                positions are ordered so that the map is good early.
            progress: called with a :class:`Progress` after each batch; True shows a progress bar.
            resume: an interrupted map of the same image and settings; only its missing positions are evaluated.

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: a setting is out of range.
            Interrupted: on Ctrl-C; carries the map so far.
        """
        request = Request(stride, target, fill, region, edges, channel, quality, score, budget, progress, resume)
        return explained(self, image, request)

    def refinements(self, image: npt.ArrayLike, **settings: Any) -> Iterator[HeatMap]:
        """Takes the settings of :meth:`explain`; yields the best map so far after each batch, and at the end the complete map."""
        return Explanation(self, image, Request(**settings), anytime=True).maps(every_batch=True)

    def explain_batch(self, images: Iterable[npt.ArrayLike], **settings: Any) -> Iterator[HeatMap]:
        """Yields the heat map of each image in turn, by the settings of :meth:`explain`."""
        for image in images:
            yield self.explain(image, **settings)

    def explain_targets(self, image: npt.ArrayLike, targets: Targets, **settings: Any) -> list[HeatMap]:
        """Exact maps of several classes, from a single evaluation of each position.

        Args:
            image: as for :meth:`explain`.
            targets: indices or labels; a number n: the n largest outputs of the uncovered image, largest first; or "all".
            settings: those of :meth:`explain`, except ``target``, ``quality`` and ``budget``; ``resume`` is a list of interrupted
                maps of some of the targets.

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: a setting is out of range or does not apply.
            Interrupted: on Ctrl-C; its ``heat_maps`` are the maps so far.
        """
        return explained_targets(self, image, targets, Request(**settings))
