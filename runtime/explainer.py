"""The driver: one baseline pass an image, then batches of positions through the incremental model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.engine import Baseline, Engine
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.exploration import Exploration
from kcompiler.runtime.full import FullInference
from kcompiler.runtime.heatmap import HeatMap
from kcompiler.runtime.images import Fill, FloatArray, check_image, plain_fill
from kcompiler.runtime.manifest import FULL, Manifest, read_manifest
from kcompiler.runtime.plans import ANYTIME, EVERYTHING, SamplingPlan, Tuned
from kcompiler.runtime.positions import Box, Grid, IntArray, check_positions, make_grid
from kcompiler.runtime.preprocessing import Picture, read_picture
from kcompiler.runtime.progress import ProgressCallback, Reporter
from kcompiler.runtime.sessions import Machine
from kcompiler.runtime.tuned import check_budget, find_tuned, saturation, spot_check, unlike_tuned

MEMORY = 2 << 30
Quality = Literal["exact"] | float | SamplingPlan | Tuned
Score = Literal["auto", "output", "logit", "drop"]
SCORES = get_args(Score)


class Interrupted(KeyboardInterrupt):
    """The user interrupted an explanation; ``heat_map`` is the best map of what was computed."""

    def __init__(self, heat_map: HeatMap) -> None:
        super().__init__(f"interrupted after {heat_map.evaluated} of {heat_map.scores.size} positions")
        self.heat_map = heat_map


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
            memory: bytes that a batch of positions may take, beside weights and cached activations.
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
        if isinstance(providers, str):
            raise UsageError(f"providers is {providers!r}, expected a list of names")
        self.machine = Machine(tuple(providers) if providers is not None else None, threads)
        self._memory = memory
        assert self.engines, "made here, so that too little memory is said at once"

    @cached_property
    def engines(self) -> dict[str, Engine]:
        """By variant name, the exact one first."""
        full = cache(partial(_full_inference, self.folder, self.manifest, self.machine))  # opened once, and only if needed
        return {
            variant.name: Engine(self.folder, self.manifest, variant, self.machine, self._memory, full, graphs=self._graphs)
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
        """Names of the outputs, empty if the bundle has none."""
        recipe = self.manifest.preprocessing
        return recipe.labels if recipe is not None else ()

    def read_image(self, path: str | Path) -> Picture:
        """Reads a picture file and preprocesses it by the recipe in the bundle.

        Raises:
            ImageError: not a picture that fits, or the bundle has no recipe.
        """
        if self.manifest.preprocessing is None:
            raise ImageError(
                f"{path}: the bundle {self.folder} has no preprocessing to read pictures by; compile with --preprocessing FILE, "
                "or give preprocessed float32 arrays (.npy)"
            )
        picture = read_picture(Path(path), self.manifest.preprocessing)
        if self.manifest.layout == "NHWC":
            picture = replace(picture, tensor=np.ascontiguousarray(picture.tensor.transpose(0, 2, 3, 1)))
        return picture

    def check_image(self, image: npt.ArrayLike) -> FloatArray:
        """The caller's image as the bundle's models take it, float32 [1, C, H, W]; see :func:`images.check_image`."""
        return check_image(image, self.manifest.shape, self.manifest.layout)

    def baseline(self, image: FloatArray, fill: Fill = 0.0, positions: int | None = None) -> Baseline:
        """Of the exact engine, see :meth:`Engine.baseline`."""
        return self.exact.baseline(image, fill, positions)

    def unoccluded(self, baseline: Baseline) -> FloatArray:
        """See :meth:`Engine.unoccluded`."""
        return self.exact.unoccluded(baseline)

    def evaluate(self, baseline: Baseline, positions: IntArray) -> FloatArray:
        """See :meth:`Engine.evaluate`."""
        return self.exact.evaluate(baseline, positions)

    def batches(self, positions: IntArray) -> list[IntArray]:
        """See :meth:`Engine.batches`."""
        return self.exact.batches(positions)

    def evaluate_all(self, baseline: Baseline, positions: IntArray) -> FloatArray:
        """See :meth:`Engine.evaluate_all`."""
        return self.exact.evaluate_all(baseline, positions)

    def outputs(self, image: npt.ArrayLike, positions: npt.ArrayLike, fill: Fill = 0.0) -> FloatArray:
        """Raw model outputs with the patch at each position.

        Args:
            image: float32 [C, H, W] or [1, C, H, W] (channels last if the source takes them so), preprocessed.
            positions: whole numbers [N, 2], top-left corners (y, x) in pixels.
            fill: one number or one a channel, in model units.

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
        stride: int = 4,
        target: int | str | None = None,
        fill: Fill = 0.0,
        region: Box | None = None,
        quality: Quality = "exact",
        score: Score = "auto",
        budget: float | None = None,
        progress: ProgressCallback | bool | None = None,
        resume: HeatMap | None = None,
    ) -> HeatMap:
        """The heat map of one output over every position of a grid.

        Args:
            image: float32 [C, H, W] or [1, C, H, W] (channels last if the source takes them so), preprocessed.
            stride: pixels between neighbouring positions.
            target: index or label of the output; None takes the largest output of the uncovered image.
            fill: one number or one a channel, in model units.
            region: (top, left, bottom, right) in pixels: only patches inside it. None is the whole image.
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
        *_, last = self.refinements(image, stride=stride, target=target, fill=fill, region=region, quality=quality, score=score,
                                budget=budget, progress=progress, resume=resume, every_batch=False)  # fmt: skip
        return last

    def refinements(
        self,
        image: npt.ArrayLike,
        *,
        stride: int = 4,
        target: int | str | None = None,
        fill: Fill = 0.0,
        region: Box | None = None,
        quality: Quality = "exact",
        score: Score = "auto",
        budget: float | None = None,
        progress: ProgressCallback | bool | None = None,
        resume: HeatMap | None = None,
        every_batch: bool = True,
    ) -> Iterator[HeatMap]:
        """The same as ever better maps: after each batch the best so far, at the end the one that :meth:`explain` returns.

        With ``every_batch`` off, only the last one.
        """
        start = time.perf_counter()
        deadline = np.inf if budget is None else start + check_budget(budget)
        grid = make_grid(self.manifest.shape[1:], self.manifest.patch, stride, region)
        tuned, plan = self._plan(quality, stride, score, anytime=budget is not None or every_batch)
        wanted = self.target_index(target) if target is not None else None
        engine = self.engines[plan.variant]
        baseline = engine.baseline(self.check_image(image), fill, len(grid.positions))
        kind, output = self.scored(score)
        unoccluded = engine.unoccluded(baseline, output)
        index = int(unoccluded.argmax()) if wanted is None else wanted
        known = _scores_to_resume(resume, grid, index, self.manifest.patch, score=kind, plan=plan)
        exploration = Exploration(engine, baseline, grid, plan, output=output, target=index,
                                  unoccluded=float(unoccluded[index]), known=known)  # fmt: skip
        earlier = resume.seconds if resume is not None else 0.0

        def heat_map(warnings: tuple[str, ...] = ()) -> HeatMap:
            scores, sampled = exploration.surface(), exploration.evaluated.reshape(grid.shape).copy()
            return HeatMap(
                scores=np.float32(unoccluded[index]) - scores if kind == "drop" else scores,
                unoccluded=float(unoccluded[index]), target=index, label=self.labels[index] if self.labels else str(index),
                ys=grid.ys, xs=grid.xs, patch=self.manifest.patch, image=self.manifest.shape[1:],
                seconds=earlier + time.perf_counter() - start, sampled=sampled, score=kind, plan=plan,
                complete=exploration.done, warnings=warnings,
            )  # fmt: skip

        reporter = Reporter(progress, exploration.most - int(exploration.evaluated.sum()))
        try:
            for count in exploration.run(deadline):
                reporter.advance(count)
                if every_batch:
                    yield heat_map()
            reporter.finish()
            warnings = self._warnings(exploration, tuned, fill, region, unoccluded, output)
        except KeyboardInterrupt:
            raise Interrupted(heat_map()) from None
        finally:
            reporter.close()
        yield heat_map(warnings)

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

    def _plan(self, quality: Quality, stride: int, score: Score, *, anytime: bool) -> tuple[Tuned | None, SamplingPlan]:
        """The plan for a quality, and what it was tuned from.

        Raises:
            UsageError: the bundle has no such plan.
        """
        if quality == "exact":
            return None, ANYTIME if anytime else EVERYTHING
        if isinstance(quality, SamplingPlan):
            return None, self._known(quality)
        base = self.scored("auto" if score == "drop" else score)[0]
        tuned = quality if isinstance(quality, Tuned) else find_tuned(self.manifest, quality, stride, base)
        return tuned, self._known(tuned.plan)

    def _known(self, plan: SamplingPlan) -> SamplingPlan:
        if plan.variant not in self.engines:
            raise UsageError(f"plan for variant {plan.variant!r}; variants in the bundle: {', '.join(self.engines)}")
        return plan

    def _warnings(
        self, exploration: Exploration, tuned: Tuned | None, fill: Fill, region: Box | None, unoccluded: FloatArray, output: str
    ) -> tuple[str, ...]:
        found: list[str] = []
        if tuned is not None:
            found += unlike_tuned(
                tuned, plain_fill(fill, self.manifest.shape), region, exploration.target, int(unoccluded.argmax())
            )
        if tuned is not None and exploration.done and not tuned.plan.everything:
            found += spot_check(exploration, self.exact, fill, tuned)
        if output == self.manifest.output and self.manifest.logits is not None:
            found += saturation(exploration.scores[exploration.evaluated], float(unoccluded[exploration.target]))
        return tuple(found)

    def target_index(self, target: int | str) -> int:
        """The output that ``target`` names.

        Raises:
            UsageError: an index out of range, or a label the bundle does not know or knows twice.
        """
        if isinstance(target, str):
            found = [index for index, label in enumerate(self.labels) if label == target]
            if len(found) != 1:
                known = ", ".join(self.labels[:10]) + (", ..." if len(self.labels) > 10 else "") if self.labels else "none"
                raise UsageError(f"target {target!r} names {len(found)} outputs; labels in the bundle: {known}")
            return found[0]
        if not isinstance(target, int | np.integer) or not 0 <= target < self.manifest.classes:
            raise UsageError(f"target is {target!r}, expected 0 to {self.manifest.classes - 1}")
        return int(target)

    def full_inference(self, *, optimise: bool = True) -> FullInference:
        """Full inference of the same model on the same machine: the reference."""
        return _full_inference(self.folder, self.manifest, self.machine, optimise=optimise)


def _full_inference(folder: Path, manifest: Manifest, machine: Machine, *, optimise: bool = True) -> FullInference:
    return FullInference(folder / FULL, manifest.output, machine, manifest.largest_batch, optimise=optimise)


def _scores_to_resume(
    resume: HeatMap | None, grid: Grid, target: int, patch: tuple[int, int], *, score: str, plan: SamplingPlan
) -> FloatArray | None:
    """Scores so far, float32 [positions], NaN where not evaluated."""
    if resume is None:
        return None
    if (
        (resume.target, resume.patch, resume.score, resume.plan.variant) != (target, patch, score, plan.variant)
        or not (np.array_equal(resume.ys, grid.ys) and np.array_equal(resume.xs, grid.xs))
    ):  # fmt: skip
        raise UsageError("the map to resume has another target, score, patch or positions than asked for now; start anew")
    scores = np.float32(resume.unoccluded) - resume.scores if resume.score == "drop" else resume.scores
    return np.where(resume.sampled, scores, np.float32(np.nan)).reshape(-1)
