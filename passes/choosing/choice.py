"""Choice: the lowering of each incremental node, the start of the dense tail, and the batch size.

The input is the propagation and prices, the output a plan with its layouts. Prices are seconds per patch position, from
:data:`prices.Prices`: predicted by the cost model, or measured on this machine (``calibrate``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.choosing.costs import flops
from kcompiler.passes.choosing.devices import CPU, Device
from kcompiler.passes.choosing.layouts import Placement
from kcompiler.passes.choosing.prices import Priced, Prices, Sample, predicted
from kcompiler.passes.lowering import select
from kcompiler.passes.lowering.layout import Layouts
from kcompiler.passes.lowering.select import LOWERINGS
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import Rates
from kcompiler.passes.plan import Plan, plan_for, whole_plan
from kcompiler.passes.regions.propagate import EXACT, Thresholds, mean_share, propagate
from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.inference.schedule import Extents, schedule
from kcompiler.runtime.inputs.positions import make_grid

ALIKE = 1.05
"""The smallest batch size whose time is at most this times the best is taken: memory grows with the batch size."""
SMALL_GAIN = 0.985
"""Fraction of the time of the best of a device's ``batches`` that its ``small_batch`` must be predicted to take at most: the time
to start operators is only roughly known."""
WHOLE_BATCH = 8
"""Batch size of a model that runs whole."""
FEW = 4
"""A batch size at which the fixed time of a batch is a large part of the whole."""
STRIDE = 4
"""Stride of the grid of positions that the choice is made for."""
SAMPLED_POSITIONS = 4096
SAMPLED_BATCHES = 48
SETTINGS = ("patch", "prefer", "direct", "dense", "device", "rates", "thresholds", "integers")
"""Arguments of a :class:`Chooser` beside its graph."""
WORTHWHILE = 0.9
"""Incremental inference must be predicted to take less than this fraction of full inference's time, or the model runs whole:
predictions are no more accurate than that, and a compiled model must not be slower."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan, layouts and batch size chosen for a model, with their predictions.

    Attributes:
        plan: which nodes are incremental; the others are the dense tail.
        layouts: the lowering of each incremental node, and the layouts of regions.
        batch: positions in a batch.
        seconds: predicted time of incremental inference per position.
        full_seconds: predicted time of full inference per position.
        error: predicted relative rms error that transforms add, all layers together.
        few: number of positions of one image below which full inference is predicted to be faster, baseline pass included.
    """

    plan: Plan
    layouts: Layouts
    batch: int
    seconds: float
    full_seconds: float
    error: float
    few: int = 0

    @property
    def integers(self) -> bool:
        """Whether any lowering multiplies 8-bit integers."""
        return any(
            lowering.integer
            for lowerings in LOWERINGS.values()
            for lowering in lowerings
            if lowering.name in self.layouts.lowerings.values()
        )


def geometries(graph: gs.Graph, plan: Plan) -> list[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """(FLOPs per cell, heights by the patch's row, widths by the patch's column) of each distinct geometry of recomputed regions.

    Rows and columns start with the first patch origin that covers a pixel of the image.
    """
    work_by_extents: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    for node in graph.nodes:
        region = plan.regions.get(node.outputs[0].name) if node.outputs else None
        if region is None or node.outputs[0].name not in plan.incremental:
            continue
        y, x = (tuple(spans.at_least_one().lengths.tolist()) for spans in (region.y, region.x))
        work = flops(node) / (region.y.size * region.x.size) + region.channels
        work_by_extents[y, x] = work_by_extents.get((y, x), 0.0) + work
    if not work_by_extents:
        region = plan.regions[plan.image]
        work_by_extents[tuple(region.y.lengths.tolist()), tuple(region.x.lengths.tolist())] = 1.0
    return [(work, y, x) for (y, x), work in work_by_extents.items()]


class Chooser:
    """Chooses for one graph and patch size: prices are computed once per batch size, plans and error budgets may vary."""

    def __init__(
        self,
        graph: gs.Graph,
        patch: tuple[int, int],
        *,
        prefer: Mapping[str, str],
        direct: bool,
        dense: str = "",
        device: Device = CPU,
        rates: Rates | None = None,
        thresholds: Thresholds = EXACT,
        integers: bool = False,
    ) -> None:
        """For ``graph`` (normalised) and ``patch`` (height, width), by predicted prices until :meth:`reprice`.

        Args:
            graph: normalised.
            patch: (height, width) in pixels.
            prefer: name of a lowering by operator or node name, used where it applies.
            direct: whether to exclude lowerings in a transformed domain (Winograd).
            dense: the reason to run the model whole; empty if regions may be recomputed.
            device: that the model runs on.
            rates: of the machine; None takes those assumed of ``device``.
            thresholds: caps on the extent of regions.
            integers: whether lowerings that multiply 8-bit integers are allowed.
        """
        self.thresholds, self.integers = thresholds, integers
        self.graph, self.patch, self.prefer, self.direct, self.dense = graph, patch, prefer, direct, dense
        self.device, self.rates = device, rates or device.rates
        self.prices: Prices = predicted
        self._samples: dict[int, Sample] = {}
        self._priced_sizes: dict[int, Priced] = {}
        self.propagation = propagate(graph, patch, thresholds)
        self.everything = plan_for(self.propagation, inf)
        image = graph.inputs[0].shape[2:]
        positions = make_grid((image[0], image[1]), patch, STRIDE).positions
        step = max(1, len(positions) // SAMPLED_POSITIONS) | 1  # odd, so that every alignment to the strides is sampled
        self.positions: IntArray = positions[::step]
        self.extents = Extents.of(geometries(graph, self.everything), patch)
        self._placement = Placement(graph, self.everything, self._allowed, blocked_layout=device.blocked_layout)

    @cached_property
    def _plans(self) -> list[Plan]:
        """The distinct plans over all thresholds on the mean share of its map above which a region's node is dense."""
        shares = {round(mean_share(region), 3) for region in self.everything.regions.values()}
        plans = [plan_for(self.propagation, share) for share in sorted({*shares, inf})]
        return list({plan.incremental: plan for plan in reversed(plans)}.values())[::-1]

    def sample(self, size: int) -> Sample:
        """A sample of batches of ``size`` positions."""
        if size not in self._samples:
            self._samples[size] = Sample(self.graph, self.everything, self.batches(size), size)
        return self._samples[size]

    def batches(self, size: int) -> list[IntArray]:
        """A sample of the scheduler's batches of ``size`` positions: each int64 [N, 2] as (y, x).

        For a device with classes of extents, all positions of a class stand for any batch of it, since they share its extents.
        """
        size = max(size, -(-len(self.positions) // self.device.classes)) if self.device.classes else size
        parts = schedule(self.positions, self.extents, size)
        whole = [part for part in parts if len(part) == size] or parts
        numbers = np.unique(np.linspace(0, len(whole) - 1, min(len(whole), SAMPLED_BATCHES)).round().astype(int))
        return [self.positions[whole[number]] for number in numbers]

    def choose(self, budget: float, batch: int | None = None, dense_share: float | None = None) -> Choice:
        """The fastest plan whose transforms add at most ``budget`` of relative rms error.

        The model runs whole where that is not predicted to be worthwhile, unless ``dense_share`` fixes which nodes are dense.
        """
        if self.dense:
            return self._whole(self.dense)
        best = self._best_batch(budget, dense_share) if batch is None else self._for_batch(batch, budget, dense_share)
        if dense_share is not None:
            return best
        if best.seconds > WORTHWHILE * best.full_seconds:
            share = best.seconds / best.full_seconds
            return self._whole(f"recomputing regions is predicted to take {share:.0%} of full inference's time{self._end()}")
        return replace(best, few=_break_even(best, *self._parts(best)))

    def _end(self) -> str:
        """For the report: the first node that no plan can make incremental, and why; empty if there is none."""
        first = next((decision for decision in self.everything.decisions if not decision.incremental), None)
        return f"; regions end at {first.node} ({first.operator}): {first.reason}" if first is not None else ""

    def _best_batch(self, budget: float, dense_share: float | None) -> Choice:
        """The choice at the best batch size, where the cost model places activations in caches or memory by the batch size."""
        sizes, small = self.device.batches, self.device.small_batch
        choices = {size: self._for_batch(size, budget, dense_share) for size in (small, *sizes)}
        seconds = {size: self._at(size, caches=True).seconds(choice.plan, choice.layouts) for size, choice in choices.items()}
        best = next(size for size in sizes if seconds[size] <= ALIKE * min(seconds[other] for other in sizes))
        return choices[small if seconds[small] <= SMALL_GAIN * seconds[best] else best]

    def _parts(self, choice: Choice) -> tuple[float, float]:
        """Fixed seconds of a batch (weights read, operators started) and seconds per position: a line through two batch sizes."""
        small, large = (self._at(size).seconds(choice.plan, choice.layouts) for size in (FEW, choice.batch))
        each = (large * choice.batch - small * FEW) / (choice.batch - FEW)
        return max(small - each, 0.0) * FEW, each

    def _whole(self, reason: str) -> Choice:
        return Choice(whole_plan(self.propagation, reason), Layouts({}, {}, {}), WHOLE_BATCH, 1.0, 1.0, 0.0)

    def same_regions(self, other: Chooser) -> bool:
        """Whether the thresholds of both choosers lead to the same regions."""
        mine, others = geometries(self.graph, self.everything), geometries(other.graph, other.everything)
        return mine == others

    def preferring(self, lowerings: Mapping[str, str]) -> Chooser:
        """A copy that also prefers ``lowerings`` (name by operator) where they apply; earlier preferences take precedence."""
        return self._like({**lowerings, **self.prefer}, self.dense)

    def running_whole(self, why: str) -> Chooser:
        """A copy that runs the model whole, for the reason ``why``."""
        return self._like(self.prefer, why)

    def _like(self, prefer: Mapping[str, str], dense: str) -> Chooser:
        other = self.anew(prefer=prefer, dense=dense)
        other.prices = self.prices
        return other

    def anew(self, **changed: Any) -> Chooser:
        """A chooser for the same graph with these arguments ``changed``, by predicted prices."""
        settings = {name: getattr(self, name) for name in SETTINGS}
        return Chooser(self.graph, **{**settings, **changed})

    def reprice(self, prices: Prices) -> None:
        """Replaces the prices that all later choices use."""
        self.prices = prices
        self._priced_sizes.clear()

    def _priced(self, size: int) -> Priced:
        if size not in self._priced_sizes:
            self._priced_sizes[size] = self._at(size, self.prices)
        return self._priced_sizes[size]

    def _at(self, size: int, prices: Prices = predicted, *, caches: bool = False) -> Priced:
        return Priced(self.sample(size), self.rates, prices, self._allowed, caches=caches)

    def _allowed(self, node: gs.Node) -> list[Lowering]:
        windows = select.windows(node, self.everything.regions[node.outputs[0].name])
        lowerings = select.candidates(node, windows, self.prefer, integers=self.integers)
        return [lowering for lowering in lowerings if not (self.direct and lowering.rounding(windows))]

    def _for_batch(self, size: int, budget: float, dense_share: float | None) -> Choice:
        priced = self._priced(size)
        full = priced.full
        plans = self._plans if dense_share is None else [plan_for(self.propagation, dense_share)]
        best: Choice | None = None
        for plan in plans:
            candidates = priced.fastest(plan, budget)
            fastest = {name: candidate.lowering.name for name, candidate in candidates.items()}
            error = float(np.sqrt(sum(candidate.error**2 for candidate in candidates.values())))
            layouts = self._placement.layouts(plan, fastest, size)
            choice = Choice(plan, layouts, size, priced.seconds(plan, layouts), full, error)
            if best is None or choice.seconds < best.seconds:
                best = choice
        assert best is not None
        return best


def _break_even(choice: Choice, fixed: float, each: float) -> int:
    """The number of positions at which full inference and the baseline pass plus one batch are predicted to take equally long.

    A batch takes ``fixed`` seconds, and ``each`` per position. At most the batch size.
    """
    overhead = fixed + assumed.BASELINE_PASSES * choice.full_seconds
    gain = choice.full_seconds - each
    return min(int(np.ceil(overhead / gain)), choice.batch) if gain > 0 else choice.batch
