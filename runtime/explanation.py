"""An explanation: from a request to the heat map, or to a series of improving heat maps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.answering import answer_of, uncovered
from kcompiler.runtime.arrays import BoolArray, FloatArray
from kcompiler.runtime.bundle.plans import ANYTIME, EVERYTHING, SamplingPlan, Tuned
from kcompiler.runtime.compiled import CompiledModel
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.images import covering, described_fill
from kcompiler.runtime.inputs.positions import Grid, make_grid, stride_pair
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import Reporter
from kcompiler.runtime.request import Request, Run
from kcompiler.runtime.sampling.exploration import Exploration
from kcompiler.runtime.sampling.tuned import check_budget, find_tuned, saturation, spot_check, unlike_tuned


class Interrupted(KeyboardInterrupt):
    """The user interrupted an explanation; ``heat_map`` is the best map so far.

    An explanation of several targets has a map for each in ``heat_maps``; ``heat_map`` is the first.
    """

    def __init__(self, *heat_maps: HeatMap) -> None:
        self.heat_map, self.heat_maps = heat_maps[0], heat_maps
        super().__init__(f"interrupted after {self.heat_map.evaluated} of {self.heat_map.scores.size} positions")

    def __reduce__(self) -> tuple[object, ...]:
        return Interrupted, self.heat_maps


class Explanation:
    """The explanation of an image by a validated request; :meth:`maps` runs it."""

    def __init__(self, model: CompiledModel, image: npt.ArrayLike, request: Request, *, anytime: bool) -> None:
        """Runs the baseline pass and computes the outputs of the uncovered image.

        Args:
            model: the compiled model.
            image: see :meth:`Explainer.explain`.
            request: settings.
            anytime: whether positions are ordered so that the map is good early.

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: a setting is out of range.
        """
        self.start = time.perf_counter()
        model.check_unaltered()
        self.deadline = np.inf if request.budget is None else self.start + check_budget(request.budget)
        self.model, self.request = model, request
        manifest = model.manifest
        self.grid = make_grid(manifest.shape[1:], manifest.patch, request.stride, request.region, request.edges)
        self.tuned, plan = _plan(model, request, anytime=anytime or request.budget is not None)
        target = model.targets.index(request.target) if request.target is not None else None
        engine = model.engines[plan.variant]
        checked = model.check_image(image)
        self.covered_by = covering(request.fill, checked, request.channel, manifest.image_element)
        baseline = engine.baseline(checked, self.covered_by, len(self.grid.positions))
        self.kind, output = model.targets.scored(request.score)
        self.output = output
        self.uncovered = uncovered(model, engine, baseline)
        self.unoccluded = self.uncovered[output]
        self.target = model.targets.largest(self.unoccluded) if target is None else target
        model.targets.check_seen(self.target, self.unoccluded)
        known = None
        if request.resume is not None:
            if not isinstance(request.resume, HeatMap):
                raise UsageError("resume is several maps, expected the one to go on with")
            check_resumable(request.resume, self.grid, self.target, manifest.patch, score=self.kind, plan=plan)
            known = scores_so_far(request.resume)
        column = model.targets.column(self.target, output)
        self.run: Run = partial(engine.run, baseline)
        """Evaluates positions."""
        if request.spread is not None:
            self.run = request.spread(engine, baseline, self.covered_by, len(self.grid.positions))
        self.exploration = Exploration(engine, baseline, self.grid, plan, output=output, target=self.target, column=column,
                                       unoccluded=float(self.unoccluded[self.target]), known=known, run=self.run)  # fmt: skip

    def maps(self, *, every_batch: bool) -> Iterator[HeatMap]:
        """Yields the map after every batch if ``every_batch``, and the final map.

        Raises:
            Interrupted: on Ctrl-C; carries the map so far.
        """
        exploration = self.exploration
        reporter = Reporter(self.request.progress, exploration.most - int(exploration.evaluated.sum()))
        try:
            for count in exploration.run(self.deadline):
                reporter.advance(count)
                if every_batch:
                    yield self._map()
            reporter.finish()
            warnings = self._warnings()
        except KeyboardInterrupt:
            raise Interrupted(self._map()) from None
        finally:
            reporter.close()
        yield self._map(warnings)

    def _map(self, warnings: tuple[str, ...] = ()) -> HeatMap:
        exploration = self.exploration
        sampled = exploration.evaluated.reshape(self.grid.shape).copy()
        earlier = self.request.resume.seconds if isinstance(self.request.resume, HeatMap) else 0.0
        return self.map_of(
            self.target, exploration.surface(), sampled, complete=exploration.done, warnings=warnings, earlier=earlier
        )

    def map_of(
        self,
        target: int,
        scores: FloatArray,
        sampled: BoolArray,
        *,
        complete: bool,
        warnings: tuple[str, ...] = (),
        earlier: float,
    ) -> HeatMap:
        """The map of ``scores`` [rows, cols] of a target; ``earlier`` are the seconds of interrupted calls before.

        Raises:
            BundleError: the bundle was altered meanwhile, so the scores may be of no model.
        """
        self.model.check_unaltered()
        manifest, unoccluded = self.model.manifest, self.unoccluded[target]
        return HeatMap(
            scores=np.float32(unoccluded) - scores if self.kind == "drop" else scores,
            unoccluded=float(unoccluded), target=target, label=self.model.label(target),
            ys=self.grid.ys, xs=self.grid.xs, patch=manifest.patch, image=manifest.shape[1:],
            seconds=earlier + time.perf_counter() - self.start, sampled=sampled, score=self.kind,
            plan=self.exploration.plan, complete=complete, warnings=warnings,
            answer=answer_of(self.model, self.uncovered, self.output, target),
        )  # fmt: skip

    def _warnings(self) -> tuple[str, ...]:
        warnings: list[str] = []
        exploration, tuned, request, manifest = self.exploration, self.tuned, self.request, self.model.manifest
        if tuned is not None:
            fill = described_fill(request.fill, manifest.shape)
            part = request.region is not None or request.edges != "valid" or request.channel is not None
            warnings += unlike_tuned(tuned, fill, self.target, self.model.targets.largest(self.unoccluded), part=part)
            if exploration.done and not tuned.plan.everything:
                warnings += spot_check(exploration, self.model.exact, self.covered_by, tuned)
        if self.output == manifest.output and manifest.logits is not None:
            warnings += saturation(exploration.scores[exploration.evaluated], float(self.unoccluded[self.target]))
        return tuple(warnings)


def explained(model: CompiledModel, image: npt.ArrayLike, request: Request) -> HeatMap:
    """See :meth:`Explainer.explain`."""
    *_, last = Explanation(model, image, request, anytime=False).maps(every_batch=False)
    return last


def check_request(model: CompiledModel, request: Request) -> None:
    """Checks what a request says of any image, but for its region.

    Raises:
        UsageError: a setting is out of range.
    """
    manifest = model.manifest
    make_grid(manifest.shape[1:], manifest.patch, request.stride, None, request.edges)
    if request.target is not None:
        model.targets.index(request.target)
    if request.channel is not None and not 0 <= request.channel < manifest.shape[0]:
        raise UsageError(f"channel is {request.channel}, expected 0 to {manifest.shape[0] - 1}")
    model.targets.scored(request.score)
    if request.budget is not None:
        check_budget(request.budget)
    _plan(model, request, anytime=False)


def _plan(model: CompiledModel, request: Request, *, anytime: bool) -> tuple[Tuned | None, SamplingPlan]:
    """The sampling plan for the requested quality, and the tuning record that it comes from, if any.

    Raises:
        UsageError: the bundle has no such plan, or no such variant.
    """
    quality = request.quality
    if quality == "exact":
        return None, ANYTIME if anytime else EVERYTHING
    if isinstance(quality, SamplingPlan):
        return None, _checked(model, quality)
    base = model.targets.scored("auto" if request.score == "drop" else request.score)[0]
    if isinstance(quality, Tuned):
        return quality, _checked(model, quality.plan)
    y, x = stride_pair(request.stride)
    if y != x:
        raise UsageError(f"quality {quality!r} at stride {request.stride}: plans are tuned for one stride along y and x")
    fill = described_fill(request.fill, model.manifest.shape)
    target = model.targets.index(request.target) if request.target is not None else None
    tuned = find_tuned(model.manifest, quality, y, base, fill, target, model.exact.variant.device)
    return tuned, _checked(model, tuned.plan)


def _checked(model: CompiledModel, plan: SamplingPlan) -> SamplingPlan:
    if plan.variant not in model.engines:
        raise UsageError(f"plan for variant {plan.variant!r}; variants in the bundle: {', '.join(model.engines)}")
    return plan


def check_resumable(resume: HeatMap, grid: Grid, target: int, patch: tuple[int, int], *, score: str, plan: SamplingPlan) -> None:
    """Checks that an explanation with these settings can resume the map ``resume``.

    Raises:
        UsageError: its target, patch, score, variant or positions differ.
    """
    if (
        (resume.target, resume.patch, resume.score, resume.plan.variant) != (target, patch, score, plan.variant)
        or not (np.array_equal(resume.ys, grid.ys) and np.array_equal(resume.xs, grid.xs))
    ):  # fmt: skip
        raise UsageError("the map to resume has another target, score, patch or positions than asked for now; start anew")


def scores_so_far(resume: HeatMap) -> FloatArray:
    """The evaluated scores of a map as the model gives them, float32 [positions]; NaN where not evaluated."""
    scores = np.float32(resume.unoccluded) - resume.scores if resume.score == "drop" else resume.scores
    return np.where(resume.sampled, scores, np.float32(np.nan)).reshape(-1)
