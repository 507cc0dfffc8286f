"""The driver: one baseline pass an image, then batches of positions through the incremental model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.engine import Baseline, Engine
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.explanation import SCORES, Explanation, Quality, Request, Score, explained_targets
from kcompiler.runtime.full import USUAL, FullInference, Order
from kcompiler.runtime.heatmap import HeatMap
from kcompiler.runtime.images import Fill, check_image
from kcompiler.runtime.manifest import FULL, Manifest, read_manifest
from kcompiler.runtime.positions import Box, Edges, Stride, check_positions
from kcompiler.runtime.preprocessing import Picture, read_picture
from kcompiler.runtime.progress import ProgressCallback
from kcompiler.runtime.sessions import Machine
from kcompiler.runtime.targets import Targets
from kcompiler.runtime.unaltered import Unaltered

MEMORY = 2 << 30


class Explainer:
    """A compiled model on ONNX Runtime. Make one with :func:`kcompiler.load`."""

    def __init__(
        self,
        folder: Path,
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        memory: int = MEMORY,
        owner: object = None,
        graphs: bool = False,
    ) -> None:
        """Checks the bundle at ``folder``; its sessions open when first needed, or by :meth:`open`.

        Args:
            folder: a compiled bundle.
            providers: see :class:`Machine`.
            threads: see :class:`Machine`.
            memory: bytes that the batches of positions under way may take, beside cached activations and weights (of which,
                if they are few, each batch under way has its own).
            graphs: run the compiled graphs even where nothing in them is incremental, as other stacks do: to verify them.
            owner: what removes the folder when it goes; kept as long as the explainer.

        Raises:
            BundleError: incomplete, altered, or of another version.
            ProviderError: ONNX Runtime or a provider is absent.
            UsageError: the memory is not enough for one position.
        """
        self.folder = folder
        self._owner = owner
        self._graphs = graphs
        self.manifest: Manifest = read_manifest(folder)
        self._files = Unaltered(folder, self.manifest.files)
        if isinstance(providers, str):
            raise UsageError(f"providers is {providers!r}, expected a list of names")
        self.machine = Machine(tuple(providers) if providers is not None else None, threads)
        self._memory = memory
        assert self.engines, "made here, so that too little memory is said at once"

    @cached_property
    def engines(self) -> dict[str, Engine]:
        """By variant name, the exact one first."""
        full = cache(partial(_full_inference, self._files, self.manifest))  # opened once for a machine, and only if needed
        return {
            variant.name: Engine(self._files, self.manifest, variant, self.machine, self._memory, full, graphs=self._graphs)
            for variant in self.manifest.variants
        }

    @property
    def exact(self) -> Engine:
        return next(iter(self.engines.values()))

    @property
    def batch(self) -> int:
        """Positions in a batch of the exact engine."""
        return self.exact.batch

    @property
    def device(self) -> str:
        """Where activations are kept: "cuda" or "cpu"."""
        return self.exact.device

    def open(self) -> Explainer:
        """Opens the sessions of the exact engine now, which otherwise happens when they are first needed."""
        self.exact.open()
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, empty if the bundle has none."""
        return self.targets.labels

    @property
    def targets(self) -> Targets:
        """What can be explained."""
        return Targets(self.manifest)

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

    def check_image(self, image: npt.ArrayLike) -> FloatArray:
        """The caller's image as the bundle's models take it, float32 [1, C, H, W]; see :func:`images.check_image`."""
        return check_image(image, self.manifest.shape, self.manifest.layout, element=self.manifest.image_element)

    def baseline(self, image: FloatArray, fill: Fill = 0.0, positions: int | None = None) -> Baseline:
        """Of the exact engine, see :meth:`Engine.baseline`."""
        return self.exact.baseline(image, fill, positions)

    def unoccluded(self, baseline: Baseline) -> FloatArray:
        """See :meth:`Engine.unoccluded`."""
        return self.exact.unoccluded(baseline)

    def evaluate(self, baseline: Baseline, positions: IntArray) -> FloatArray:
        """See :meth:`Engine.evaluate`."""
        return self.exact.evaluate(baseline, positions)

    def evaluate_batches(self, baseline: Baseline, batches: Sequence[IntArray]) -> Iterator[FloatArray]:
        """See :meth:`Engine.evaluate_batches`."""
        return self.exact.evaluate_batches(baseline, batches)

    def batches(self, positions: IntArray) -> list[IntArray]:
        """See :meth:`Engine.batches`."""
        return self.exact.batches(positions)

    def evaluate_all(self, baseline: Baseline, positions: IntArray) -> FloatArray:
        """See :meth:`Engine.evaluate_all`."""
        return self.exact.evaluate_all(baseline, positions)

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
        return self.evaluate_all(self.baseline(self.check_image(image), fill, len(corners)), corners)

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
                pictures or patches (:mod:`kcompiler.runtime.fills`). Where the source takes whole numbers, numbers that are
                given must be whole, and what is made is rounded.
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
        *_, last = Explanation(self, image, request, anytime=False).maps(every_batch=False)
        return last

    def refinements(self, image: npt.ArrayLike, **settings: Any) -> Iterator[HeatMap]:
        """The same, by the same settings, as ever better maps: the best so far after each batch, at the end the whole one."""
        return Explanation(self, image, Request(**settings), anytime=True).maps(every_batch=True)

    def explain_batch(self, images: Iterable[npt.ArrayLike], **settings: Any) -> Iterator[HeatMap]:
        """The heat map of each image, one after the other, by the settings of :meth:`explain`."""
        for image in images:
            yield self.explain(image, **settings)

    def explain_targets(
        self, image: npt.ArrayLike, targets: Sequence[int | str] | int | Literal["all"], **settings: Any
    ) -> list[HeatMap]:
        """Exact maps of several outputs, from one evaluation of all positions.

        Args:
            image: as for :meth:`explain`, whose other settings apply, but for ``target``, ``quality``, ``budget`` and ``resume``.
            targets: indices or labels; a number: as many of the largest outputs of the uncovered image, largest first; or "all".

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: a setting out of range, or one that does not apply.
        """
        return explained_targets(self, image, targets, Request(**settings))

    def scored(self, score: Score) -> tuple[str, str]:
        """What is scored ("output", "logit" or "drop"), and the name of the models' output that it is read from.

        Raises:
            UsageError: no such score, or the model has no logits behind its output.
        """
        manifest = self.manifest
        if score not in SCORES:
            raise UsageError(f"score is {score!r}, expected one of {', '.join(SCORES)}")
        if score == "logit" and manifest.logits is None:
            raise UsageError(f"score 'logit': {manifest.model} does not end in a softmax or sigmoid; ask for 'output'")
        if score == "output" or manifest.logits is None:
            return "drop" if score == "drop" else "output", manifest.output
        return "drop" if score == "drop" else "logit", manifest.logits

    def target_index(self, target: int | str) -> int:
        """The class that ``target`` names, see :meth:`Targets.index`."""
        return self.targets.index(target)

    def full_inference(self, *, order: Order = USUAL, machine: Machine | None = None) -> FullInference:
        """Full inference of the same model on the same machine, or on part of it: the reference."""
        return _full_inference(self._files, self.manifest, machine or self.machine, order)


def _full_inference(files: Unaltered, manifest: Manifest, machine: Machine, order: Order = USUAL) -> FullInference:
    model, batch = files.folder / FULL, manifest.largest_batch
    found = FullInference(model, manifest.output, machine, batch, order, reduction=manifest.reduction)
    files.check()
    return found
