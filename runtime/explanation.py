"""One explanation: from what is asked for to the heat map, or to ever better ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import BoolArray, FloatArray
from kcompiler.runtime.bundle.plans import ANYTIME, EVERYTHING, SamplingPlan, Tuned
from kcompiler.runtime.compiled import CompiledModel
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.images import covering, described_fill
from kcompiler.runtime.inputs.positions import Grid, make_grid, stride_pair
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import Reporter
from kcompiler.runtime.request import Request
from kcompiler.runtime.sampling.exploration import Exploration
from kcompiler.runtime.sampling.tuned import check_budget, find_tuned, saturation, spot_check, unlike_tuned


class Interrupted(KeyboardInterrupt):
    """The user interrupted an explanation; ``heat_map`` is the best map of what was computed."""

    def __init__(self, heat_map: HeatMap) -> None:
        super().__init__(f"interrupted after {heat_map.evaluated} of {heat_map.scores.size} positions")
        self.heat_map = heat_map


class Explanation:
    """A request for an image, ready to be carried out."""

    def __init__(self, model: CompiledModel, image: npt.ArrayLike, request: Request, *, anytime: bool) -> None:
        """The baseline pass and the uncovered outputs are computed here.

        Args:
            anytime: whether positions are to be taken in an order that makes the map good early.

        Raises:
            ImageError: the image does not fit the model or is not finite.
            UsageError: a setting out of range.
        """
        self.start = time.perf_counter()
        self.deadline = np.inf if request.budget is None else self.start + check_budget(request.budget)
        self.model, self.request = model, request
        manifest = model.manifest
        self.grid = make_grid(manifest.shape[1:], manifest.patch, request.stride, request.region, request.edges)
        self.tuned, plan = _plan(model, request, anytime=anytime or request.budget is not None)
        wanted = model.targets.index(request.target) if request.target is not None else None
        engine = model.engines[plan.variant]
        checked = model.check_image(image)
        self.covered_by = covering(request.fill, checked, request.channel, manifest.image_element)
        baseline = engine.baseline(checked, self.covered_by, len(self.grid.positions))
        self.kind, output = model.targets.scored(request.score)
        self.output = output
        self.unoccluded = model.targets.scores(engine.unoccluded(baseline, output), output)
        self.target = model.targets.largest(self.unoccluded) if wanted is None else wanted
        model.targets.check_seen(self.target, self.unoccluded)
        known = _scores_to_resume(request.resume, self.grid, self.target, manifest.patch, score=self.kind, plan=plan)
        column = model.targets.column(self.target, output)
        self.exploration = Exploration(engine, baseline, self.grid, plan, output=output, target=self.target, column=column,
                                       unoccluded=float(self.unoccluded[self.target]), known=known)  # fmt: skip

    def maps(self, *, every_batch: bool) -> Iterator[HeatMap]:
        """The map as it is at the end and, if asked for, after every batch before.

        Raises:
            Interrupted: on Ctrl-C; carries what was computed so far.
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
        return self._of(exploration.surface(), self.target, sampled, complete=exploration.done, warnings=warnings)

    def whole_map(self, scores: FloatArray, target: int) -> HeatMap:
        """The map of an output of which all scores are known, float32 [positions]."""
        sampled = np.ones(self.grid.shape, np.bool_)
        return self._of(scores.reshape(self.grid.shape), target, sampled, complete=True, warnings=())

    def _of(self, scores: FloatArray, target: int, sampled: BoolArray, *, complete: bool, warnings: tuple[str, ...]) -> HeatMap:
        manifest, labels, unoccluded = self.model.manifest, self.model.targets.labels, self.unoccluded[target]
        earlier = self.request.resume.seconds if self.request.resume is not None else 0.0
        return HeatMap(
            scores=np.float32(unoccluded) - scores if self.kind == "drop" else scores,
            unoccluded=float(unoccluded), target=target, label=labels[target] if labels else str(target),
            ys=self.grid.ys, xs=self.grid.xs, patch=manifest.patch, image=manifest.shape[1:],
            seconds=earlier + time.perf_counter() - self.start, sampled=sampled, score=self.kind,
            plan=self.exploration.plan, complete=complete, warnings=warnings,
        )  # fmt: skip

    def _warnings(self) -> tuple[str, ...]:
        found: list[str] = []
        exploration, tuned, request, manifest = self.exploration, self.tuned, self.request, self.model.manifest
        if tuned is not None:
            fill = described_fill(request.fill, manifest.shape)
            part = request.region is not None or request.edges != "valid" or request.channel is not None
            found += unlike_tuned(tuned, fill, self.target, int(self.unoccluded.argmax()), part=part)
            if exploration.done and not tuned.plan.everything:
                found += spot_check(exploration, self.model.exact, self.covered_by, tuned)
        if self.output == manifest.output and manifest.logits is not None:
            found += saturation(exploration.scores[exploration.evaluated], float(self.unoccluded[self.target]))
        return tuple(found)


def explained(model: CompiledModel, image: npt.ArrayLike, request: Request) -> HeatMap:
    """See :meth:`Explainer.explain`."""
    *_, last = Explanation(model, image, request, anytime=False).maps(every_batch=False)
    return last


def explained_targets(
    model: CompiledModel, image: npt.ArrayLike, targets: Sequence[int | str] | int | Literal["all"], request: Request
) -> list[HeatMap]:
    """See :meth:`Explainer.explain_targets`."""
    if request.target is not None or request.quality != "exact" or request.budget is not None or request.resume is not None:
        raise UsageError("target, quality, budget and resume do not apply to the maps of several targets")
    count = model.targets.count
    if isinstance(targets, int) and not 1 <= targets <= count:
        raise UsageError(f"targets is {targets}, expected 1 to {count} of the largest outputs, 'all', or a list")
    if isinstance(targets, str) and targets != "all":
        raise UsageError(f"targets is {targets!r}, expected 'all', a number, or a list of indices or labels")
    one = Explanation(model, image, request, anytime=False)
    if targets == "all":
        indices = model.targets.seen(one.unoccluded).tolist()
    elif isinstance(targets, int):
        seen = model.targets.seen(one.unoccluded)
        indices = seen[np.argsort(-one.unoccluded[seen], kind="stable")][:targets].tolist()
    else:
        indices = [model.targets.index(target) for target in targets]
        for index in indices:
            model.targets.check_seen(index, one.unoccluded)
    scores = _scores_of(one, indices)
    return [one.whole_map(column, index) for column, index in zip(scores, indices, strict=True)]


def _scores_of(one: Explanation, indices: Sequence[int]) -> FloatArray:
    """The scores of some classes at all positions, float32 [classes, positions], from one evaluation of each position."""
    exploration, positions = one.exploration, one.grid.positions
    columns = [one.model.targets.column(index, one.output) for index in indices]

    def keep(outputs: FloatArray) -> FloatArray:
        return np.stack([column.of(outputs) for column in columns], axis=-1)

    scores = np.empty((len(positions), len(indices)), np.float32)
    reporter = Reporter(one.request.progress, len(positions))
    try:
        for part, found in exploration.engine.run(exploration.baseline, positions, one.output, keep=keep):
            scores[part] = found
            reporter.advance(len(part))
        reporter.finish()
    finally:
        reporter.close()
    return scores.T


def _plan(model: CompiledModel, request: Request, *, anytime: bool) -> tuple[Tuned | None, SamplingPlan]:
    """The plan for a quality, and what it was tuned from.

    Raises:
        UsageError: the bundle has no such plan.
    """
    quality = request.quality
    if quality == "exact":
        return None, ANYTIME if anytime else EVERYTHING
    if isinstance(quality, SamplingPlan):
        return None, _known(model, quality)
    base = model.targets.scored("auto" if request.score == "drop" else request.score)[0]
    if isinstance(quality, Tuned):
        return quality, _known(model, quality.plan)
    y, x = stride_pair(request.stride)
    if y != x:
        raise UsageError(f"quality {quality!r} at stride {request.stride}: plans are tuned for one stride along y and x")
    fill = described_fill(request.fill, model.manifest.shape)
    target = model.targets.index(request.target) if request.target is not None else None
    tuned = find_tuned(model.manifest, quality, y, base, fill, target)
    return tuned, _known(model, tuned.plan)


def _known(model: CompiledModel, plan: SamplingPlan) -> SamplingPlan:
    if plan.variant not in model.engines:
        raise UsageError(f"plan for variant {plan.variant!r}; variants in the bundle: {', '.join(model.engines)}")
    return plan


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
