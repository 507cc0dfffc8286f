"""Prices: seconds per patch position of every node, dense and by each allowed lowering, at one batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.choosing.budget import Candidate, within_budget
from kcompiler.passes.choosing.costs import flops
from kcompiler.passes.graphs.quantised import INTEGERS, ON_INTEGERS
from kcompiler.passes.graphs.values import numbers_at_least
from kcompiler.passes.lowering import select
from kcompiler.passes.lowering.heads import is_head
from kcompiler.passes.lowering.layout import Layouts, Transitions
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import FLOAT_BYTES, Rates, Shape, Work, read_again
from kcompiler.passes.plan import Plan
from kcompiler.passes.regions.geometry import Spans
from kcompiler.passes.regions.region import Region
from kcompiler.runtime.arrays import IntArray

ROUNDING = 1.1e-7
"""Rms error of a layer, relative to its output's rms, per unit of a lowering's ``rounding``."""

HEAD_NODES = 16
"""Nodes emitted to update a head. Its price is the time to start them, as they compute little."""

Prices = Callable[[gs.Node, Sequence[IntArray], Sequence[tuple[Lowering, float]]], list[float]]
"""Seconds per position of a node in the given batches of positions, for each candidate (lowering, predicted seconds)."""


def predicted(node: gs.Node, batches: Sequence[IntArray], candidates: Sequence[tuple[Lowering, float]]) -> list[float]:
    """Prices that are the predictions themselves."""
    return [seconds for _, seconds in candidates]


class Sample:
    """A sample of the scheduler's batches of one size, and the sizes of every node in them, computed when first asked for."""

    def __init__(self, graph: gs.Graph, everything: Plan, batches: Sequence[IntArray], size: int) -> None:
        """For the nodes of ``graph`` and the regions of ``everything``.

        Args:
            graph: normalised, with exchanges made.
            everything: the plan in which every node with a rule is incremental.
            batches: each int64 [N, 2] as (y, x).
            size: of a batch.
        """
        self.graph, self.everything, self.batches, self.size = graph, everything, batches, size
        self.nodes = {node.name: node for node in graph.nodes}
        self._places = np.concatenate(batches)
        self._starts = np.cumsum([0, *map(len, batches)])[:-1]
        self._shapes: dict[str, Shape] = {}

    def shape(self, node: gs.Node) -> Shape:
        """The sizes of an incremental node, with the transitions before layouts are chosen (:func:`select.shape_of`)."""
        if node.name not in self._shapes:
            extents = self._extents(self.everything.regions[node.outputs[0].name])
            self._shapes[node.name] = select.shape_of(node, self.everything, *extents, self.size)
        return self._shapes[node.name]

    def _extents(self, region: Region) -> tuple[IntArray, IntArray]:
        """The height and width of a region in each batch: the largest of its positions."""
        y, x = (self._largest(spans, places) for spans, places in zip((region.y, region.x), self._places.T, strict=True))
        return y, x

    def _largest(self, spans: Spans, places: IntArray) -> IntArray:
        largest: IntArray = np.maximum.reduceat(spans.at_least_one().lengths[places + spans.before], self._starts)
        return largest


class Priced:
    """The prices of every node at one batch size."""

    def __init__(
        self,
        sample: Sample,
        rates: Rates,
        prices: Prices,
        allowed: Callable[[gs.Node], Sequence[Lowering]],
        *,
        caches: bool = False,
    ) -> None:
        """For the nodes of ``sample``.

        Args:
            sample: batches of that size.
            rates: of the machine.
            prices: corrects predictions, or returns them.
            allowed: lowerings that may compute a node.
            caches: whether the cost of a pass depends on the cache that a batch's activations fit in. For comparing batch sizes;
                lowerings are compared without.
        """
        self.sample, self.rates, self.prices, self.allowed = sample, rates, prices, allowed
        self.size, self.at = sample.size, sample.size if caches else None
        self._laid_out_seconds: dict[object, float] = {}
        self._candidates: dict[str, list[Candidate]] = {}
        self.dense = {node.name: self._dense(node) for node in sample.graph.nodes}

    def candidates(self, name: str) -> list[Candidate]:
        """The lowerings that may compute the incremental node ``name``, with their prices and errors."""
        if name not in self._candidates:
            node = self.sample.nodes[name]
            lowerings, windows = self.allowed(node), select.windows(node, self.sample.everything.regions[node.outputs[0].name])
            predictions = [(lowering, self._predicted(node, lowering)) for lowering in lowerings]
            seconds = self.prices(node, self.sample.batches, predictions)
            errors = [ROUNDING * lowering.rounding(windows) for lowering in lowerings]
            self._candidates[name] = [Candidate(*fields) for fields in zip(lowerings, seconds, errors, strict=True)]
        return self._candidates[name]

    def _predicted(self, node: gs.Node, lowering: Lowering, transitions: Transitions | None = None) -> float:
        """Seconds per position by the cost model; without ``transitions``, those before layouts are chosen."""
        shape = self.sample.shape(node)
        work = lowering.work(shape if transitions is None else replace(shape, transitions=transitions))
        return self.rates.seconds(in_bytes_of(node.outputs[0], work), self.at)

    def _dense(self, node: gs.Node) -> float:
        elements = sum(_float_elements(value) for value in (*node.inputs, *node.outputs))
        weights = sum(_share(v) * prod(v.shape) for v in node.inputs if isinstance(v, gs.Constant)) / self.size
        total = Work(moved=elements, loaded=weights, nodes=1 / self.size, held=elements) + self._arithmetic(node)
        return self.rates.seconds(total, self.at)

    def _arithmetic(self, node: gs.Node) -> Work:
        """The work of a convolution or matrix product on full maps, beyond reading its operands and writing its output once."""
        work = flops(node)
        if node.op in ON_INTEGERS:
            return Work(integer=work)
        if node.op == "Conv" or not work:
            return Work(convolved=work)
        depth = work / (2 * _float_elements(node.outputs[0]))
        rows = _float_elements(node.inputs[0]) / depth * self.size
        return Work(products=work, moved=read_again(work, rows, depth))

    def _paste(self, region: Region, share: float = 1.0) -> float:
        """Seconds per position to paste a region into its NCHW map; ``share`` is the element size over that of float32."""
        elements = share * region.channels * region.y.size * region.x.size
        work = Work(moved=4 * elements + 2 * elements / self.size, nodes=20 / self.size, held=2 * elements)
        return self.rates.seconds(work, self.at)

    @property
    def full(self) -> float:
        """Seconds per position of full inference."""
        return sum(self.dense.values()) + self._paste(self.sample.everything.regions[self.sample.everything.image])

    def fastest(self, plan: Plan, budget: float) -> dict[str, Candidate]:
        """The fastest candidates of the incremental nodes of ``plan``, by node name, within an error ``budget`` for all."""
        incremental = [decision.node for decision in plan.decisions if decision.incremental]
        return within_budget({name: self.candidates(name) for name in incremental}, budget)

    def seconds(self, plan: Plan, layouts: Layouts) -> float:
        """Seconds per position of ``plan``, its incremental nodes computed as in ``layouts``."""
        nodes = sum(self._laid_out(node, name, layouts.transitions[node]) for node, name in layouts.lowerings.items())
        return self._tail(plan) + nodes + self._repeated(layouts)

    def _repeated(self, layouts: Layouts) -> float:
        """Seconds to start the operators of micro-batches again: about one per node, and two for rows and indices."""
        repeated = sum((chain.count - 1) * (len(chain.nodes) + 2) for chain in layouts.microbatches.values())
        return self.rates.seconds(Work(nodes=repeated / self.size))

    def _laid_out(self, name: str, lowering: str, transitions: Transitions) -> float:
        """The price of a node by a lowering, corrected by the predicted difference that its layout conversions make."""
        key = name, lowering, transitions
        if key not in self._laid_out_seconds:
            node = self.sample.nodes[name]
            seconds = self._predicted(node, select.by_name(node, lowering), transitions)
            if self.prices is not predicted:
                (candidate,) = (candidate for candidate in self.candidates(name) if candidate.lowering.name == lowering)
                seconds += candidate.seconds - self._predicted(node, candidate.lowering)
            self._laid_out_seconds[key] = seconds
        return self._laid_out_seconds[key]

    def _tail(self, plan: Plan) -> float:
        """Seconds per position of the dense tail: its nodes, and pasting the regions at the frontier into their maps."""
        needed = [
            node
            for node, decision in zip(self.sample.graph.nodes, plan.decisions, strict=True)
            if not decision.incremental and node.name in plan.needed
        ]
        tail = [node for node in needed if not self._is_head(node, plan)]
        # A dict in graph order, since the order of a set would change float sums between runs.
        frontier = {value.name: _share(value) for node in tail for value in node.inputs if value.name in plan.incremental}
        started = self.rates.seconds(Work(nodes=HEAD_NODES * (len(needed) - len(tail)) / self.size), self.at)
        return (
            started
            + sum(self.dense[node.name] for node in tail)
            + sum(self._paste(plan.regions[name], share) for name, share in frontier.items())
        )

    def _is_head(self, node: gs.Node, plan: Plan) -> bool:
        read = node.inputs[0].name if node.inputs else ""
        return read in plan.incremental and is_head(node, plan.regions[read])


def _float_elements(value: gs.Tensor) -> float:
    """Elements of an activation for one image, in units of float32: 8-bit elements count a quarter."""
    if isinstance(value, gs.Constant) or value.shape is None:
        return 0
    return _share(value) * numbers_at_least(value)


def _share(value: gs.Tensor) -> float:
    """The element size of ``value`` over that of float32."""
    return 1 / FLOAT_BYTES if value.dtype in INTEGERS else 1.0


def in_bytes_of(value: gs.Tensor, work: Work) -> Work:
    """``work``, whose traffic counts float32 elements, for the element size of ``value``."""
    share = _share(value)
    return replace(work, moved=share * work.moved, loaded=share * work.loaded, held=share * work.held)
