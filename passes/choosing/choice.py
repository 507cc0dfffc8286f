"""Choice: which lowering computes each node, where the dense tail starts, how many positions share a batch.

Analysis and prices in, a plan out. Prices are seconds a position, from :data:`prices.Prices`: predicted from the work, or
measured on this machine (``calibrate``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.choosing.costs import flops
from kcompiler.passes.choosing.layouts import Placement
from kcompiler.passes.choosing.prices import Priced, Prices, predicted
from kcompiler.passes.lowering import select
from kcompiler.passes.lowering.layout import Layouts
from kcompiler.passes.lowering.select import LOWERINGS
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import DEFAULT_RATES, Rates
from kcompiler.passes.plan import Plan, plan_for, whole_plan
from kcompiler.passes.regions.propagate import EXACT, Thresholds, mean_share, propagate
from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.inference.schedule import Extents, schedule
from kcompiler.runtime.inputs.positions import make_grid

BATCHES = (16, 32, 64, 128)
ALIKE = 1.05
"""The smallest of the batches whose time is at most this times the best is taken: memory grows with the batch."""
SMALL_BATCH, SMALL_GAIN = 8, 0.985
"""Share of that one's time that a small batch must be predicted to take: what starting operators takes is a guess."""
WHOLE_BATCH = 8
FEW = 4
"""Positions of a batch in which what each batch takes is a large part."""
STRIDE = 4
"""Of the grid that choices are made for."""
SAMPLED_POSITIONS = 4096
SAMPLED_BATCHES = 48
WORTHWHILE = 0.9
"""Incremental inference must be predicted to take less than this share of full inference's time, or the model runs whole:
predictions are that good at best, and a compiled model is never to be slower."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        plan: with the dense tail.
        layouts: the lowering of each incremental node, and how the regions are held.
        batch: positions in a batch.
        seconds: predicted, a position.
        full_seconds: predicted for full inference.
        error: predicted relative rms error that transforms add, all layers together.
        few: for fewer positions full inference is predicted to take less time, the baseline pass being their own.
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
        """Whether any product is of 8-bit integers."""
        return any(one.integer for known in LOWERINGS.values() for one in known if one.name in self.layouts.lowerings.values())


def geometries(graph: gs.Graph, plan: Plan) -> list[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """(FLOPs a cell, heights by row of the patch, widths by column) of each geometry of a region that is computed.

    Rows and columns begin where the patch has one of its own in the image.
    """
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    for node in graph.nodes:
        region = plan.regions.get(node.outputs[0].name) if node.outputs else None
        if region is None or node.outputs[0].name not in plan.incremental:
            continue
        y, x = (tuple(spans.at_least_one().lengths.tolist()) for spans in (region.y, region.x))
        work = flops(node) / (region.y.size * region.x.size) + region.channels
        found[y, x] = found.get((y, x), 0.0) + work
    if not found:
        region = plan.regions[plan.image]
        found[tuple(region.y.lengths.tolist()), tuple(region.x.lengths.tolist())] = 1.0
    return [(work, y, x) for (y, x), work in found.items()]


class Chooser:
    """The choice for one graph and patch: prices are asked for once, plans and error budgets may vary."""

    def __init__(
        self,
        graph: gs.Graph,
        patch: tuple[int, int],
        *,
        prefer: Mapping[str, str],
        direct: bool,
        dense: str = "",
        rates: Rates = DEFAULT_RATES,
        thresholds: Thresholds = EXACT,
        integers: bool = False,
    ) -> None:
        """For ``graph`` (normalised) and ``patch`` (height, width), by predicted prices until :meth:`reprice`.

        Args:
            rates: of the machine.
            prefer: name of a lowering by operator or node name, used where it applies.
            direct: whether to leave out lowerings that transform.
            dense: why the model is to run whole, if so.
            thresholds: how large regions may be.
            integers: whether products may be of 8-bit integers.
        """
        self.thresholds, self.integers = thresholds, integers
        self.graph, self.patch, self.rates, self.prefer, self.direct, self.dense = graph, patch, rates, prefer, direct, dense
        self.prices: Prices = predicted
        self._known: dict[int, Priced] = {}
        self.propagation = propagate(graph, patch, thresholds)
        self.everything = plan_for(self.propagation, inf)
        image = graph.inputs[0].shape[2:]
        positions = make_grid((image[0], image[1]), patch, STRIDE).positions
        step = max(1, len(positions) // SAMPLED_POSITIONS) | 1  # odd, so that every alignment to the strides is met
        self.positions: IntArray = positions[::step]
        self.extents = Extents.of(geometries(graph, self.everything), patch)
        self._placement = Placement(graph, self.everything, self._allowed)

    @cached_property
    def _plans(self) -> list[Plan]:
        """All that differ in what is incremental: dense are the nodes whose regions cover more than some share of their maps."""
        shares = {round(mean_share(region), 3) for region in self.everything.regions.values()}
        plans = [plan_for(self.propagation, share) for share in sorted({*shares, inf})]
        return list({plan.incremental: plan for plan in reversed(plans)}.values())[::-1]

    def batches(self, size: int) -> list[IntArray]:
        """A sample of the batches that the scheduler makes: positions int64 [N, 2]."""
        parts = schedule(self.positions, self.extents, size)
        whole = [part for part in parts if len(part) == size] or parts
        numbers = np.unique(np.linspace(0, len(whole) - 1, min(len(whole), SAMPLED_BATCHES)).round().astype(int))
        return [self.positions[whole[number]] for number in numbers]

    def choose(self, budget: float, batch: int | None = None, dense_share: float | None = None) -> Choice:
        """The fastest plan whose transforms add at most ``budget`` of relative rms error.

        Where it is not predicted to be worthwhile the model runs whole, unless ``dense_share`` decides what is dense.
        """
        if self.dense:
            return self._whole(self.dense)
        best = self._best_batch(budget, dense_share) if batch is None else self._for_batch(batch, budget, dense_share)
        if dense_share is not None:
            return best
        if best.seconds > WORTHWHILE * best.full_seconds:
            share = best.seconds / best.full_seconds
            return self._whole(f"recomputing regions is predicted to take {share:.0%} of full inference's time{self._end()}")
        return replace(best, few=_few(best, *self._parts(best)))

    def _end(self) -> str:
        """Where regions end whatever is chosen, as part of a reason; empty if they do not."""
        first = next((one for one in self.everything.decisions if not one.incremental), None)
        return f"; regions end at {first.node} ({first.operator}): {first.reason}" if first is not None else ""

    def _best_batch(self, budget: float, dense_share: float | None) -> Choice:
        """By what each takes where activations lie in caches or in memory by the size of the batch."""
        choices = {size: self._for_batch(size, budget, dense_share) for size in (SMALL_BATCH, *BATCHES)}
        seconds = {size: self._at(size, caches=True).seconds(one.plan, one.layouts) for size, one in choices.items()}
        best = next(size for size in BATCHES if seconds[size] <= ALIKE * min(seconds[other] for other in BATCHES))
        return choices[SMALL_BATCH if seconds[SMALL_BATCH] <= SMALL_GAIN * seconds[best] else best]

    def _parts(self, choice: Choice) -> tuple[float, float]:
        """Seconds that a batch takes (weights read, operators started), and that each position adds, from two sizes."""
        small, large = (self._at(size).seconds(choice.plan, choice.layouts) for size in (FEW, choice.batch))
        each = (large * choice.batch - small * FEW) / (choice.batch - FEW)
        return max(small - each, 0.0) * FEW, each

    def _whole(self, reason: str) -> Choice:
        return Choice(whole_plan(self.propagation, reason), Layouts({}, {}), WHOLE_BATCH, 1.0, 1.0, 0.0)

    def same_regions(self, other: Chooser) -> bool:
        """Whether the thresholds of the two leave the same regions."""
        mine, others = geometries(self.graph, self.everything), geometries(other.graph, other.everything)
        return mine == others

    def preferring(self, lowerings: Mapping[str, str]) -> Chooser:
        """The same with further lowerings that are used where they apply, by operator; those preferred already come first."""
        return self._like({**lowerings, **self.prefer}, self.dense)

    def running_whole(self, why: str) -> Chooser:
        """The same for a model that is to run whole."""
        return self._like(self.prefer, why)

    def _like(self, prefer: Mapping[str, str], dense: str) -> Chooser:
        other = Chooser(
            self.graph, self.patch, prefer=prefer, direct=self.direct, dense=dense, rates=self.rates,
            thresholds=self.thresholds, integers=self.integers,
        )  # fmt: skip
        other.prices = self.prices
        return other

    def reprice(self, prices: Prices) -> None:
        """From now on, asks ``prices``."""
        self.prices = prices
        self._known.clear()

    def _priced(self, size: int) -> Priced:
        if size not in self._known:
            self._known[size] = self._at(size, self.prices)
        return self._known[size]

    def _at(self, size: int, prices: Prices = predicted, *, caches: bool = False) -> Priced:
        batches = self.batches(size)
        return Priced(self.graph, self.everything, batches, size, self.rates, prices, self._allowed, caches=caches)

    def _allowed(self, node: gs.Node) -> list[Lowering]:
        windows = select.windows(node, self.everything.regions[node.outputs[0].name])
        known = select.candidates(node, windows, self.prefer, integers=self.integers)
        return [lowering for lowering in known if not (self.direct and lowering.rounding(windows))]

    def _for_batch(self, size: int, budget: float, dense_share: float | None) -> Choice:
        priced = self._priced(size)
        full = priced.full
        tried = self._plans if dense_share is None else [plan_for(self.propagation, dense_share)]
        best: Choice | None = None
        for plan in tried:
            chosen = priced.fastest(plan, budget)
            fastest = {name: candidate.lowering.name for name, candidate in chosen.items()}
            error = float(np.sqrt(sum(candidate.error**2 for candidate in chosen.values())))
            layouts = self._placement.layouts(plan, fastest, size)
            choice = Choice(plan, layouts, size, priced.seconds(plan, layouts), full, error)
            if best is None or choice.seconds < best.seconds:
                best = choice
        assert best is not None
        return best


def _few(choice: Choice, once: float, each: float) -> int:
    """Where the lines of seconds by positions cross: of full inference, and of the baseline pass and one batch."""
    alone = once + assumed.BASELINE_PASSES * choice.full_seconds
    saved = choice.full_seconds - each
    return min(int(np.ceil(alone / saved)), choice.batch) if saved > 0 else choice.batch
