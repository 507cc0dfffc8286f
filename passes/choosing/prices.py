"""Prices: seconds a position of every node of a graph, dense or by each lowering that may compute it, at one batch size."""

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
from kcompiler.passes.regions.region import Region
from kcompiler.runtime.arrays import IntArray

ROUNDING = 1.1e-7
"""Rms error of a layer, relative to its output's rms, for each unit of a lowering's ``rounding``."""

HEAD_NODES = 16
"""Of the emitted graph, that update a mean: what they compute is little."""

Prices = Callable[[gs.Node, Sequence[IntArray], Sequence[tuple[Lowering, float]]], list[float]]
"""Seconds a position of a node in batches of positions, by each of some lowerings with predictions of their seconds."""


def predicted(node: gs.Node, batches: Sequence[IntArray], candidates: Sequence[tuple[Lowering, float]]) -> list[float]:
    """Prices without measuring anything."""
    return [seconds for _, seconds in candidates]


class Priced:
    """The prices of every node at one batch size."""

    def __init__(
        self,
        graph: gs.Graph,
        everything: Plan,
        batches: Sequence[IntArray],
        size: int,
        rates: Rates,
        prices: Prices,
        allowed: Callable[[gs.Node], Sequence[Lowering]],
        *,
        caches: bool = False,
    ) -> None:
        """For the nodes of ``graph`` and the regions of ``everything``.

        Args:
            batches: of ``size`` positions each, that stand for all.
            allowed: lowerings that may compute a node.
            caches: whether passes cost by where the activations of a batch lie: to compare batches, not lowerings.
        """
        self.graph, self.everything, self.batches, self.size = graph, everything, batches, size
        self.rates, self.prices, self.allowed = rates, prices, allowed
        self.at = size if caches else None
        self.nodes = {node.name: node for node in graph.nodes}
        self._known: dict[object, float] = {}
        self._shapes: dict[str, Shape] = {}
        self.dense = {node.name: self._dense(node) for node in graph.nodes}
        self.candidates = {
            node.name: self._candidates(node)
            for node in graph.nodes
            if node.outputs and node.outputs[0].name in everything.incremental
        }

    def _extents(self, region: Region) -> tuple[IntArray, IntArray]:
        y, x = region.y.at_least_one().lengths, region.x.at_least_one().lengths
        return (
            np.array([y[part[:, 0] + region.y.before].max() for part in self.batches]),
            np.array([x[part[:, 1] + region.x.before].max() for part in self.batches]),
        )

    def _candidates(self, node: gs.Node) -> list[Candidate]:
        known, windows = self.allowed(node), select.windows(node, self.everything.regions[node.outputs[0].name])
        predictions = [(lowering, self._predicted(node, lowering)) for lowering in known]
        seconds = self.prices(node, self.batches, predictions)
        errors = [ROUNDING * lowering.rounding(windows) for lowering in known]
        return [Candidate(*one) for one in zip(known, seconds, errors, strict=True)]

    def _predicted(self, node: gs.Node, lowering: Lowering, transitions: Transitions | None = None) -> float:
        """Seconds a position, by the work of the lowering."""
        shape = self._shape(node)
        work = lowering.work(shape if transitions is None else replace(shape, transitions=transitions))
        return self.rates.seconds(in_bytes_of(node.outputs[0], work), self.at)

    def _shape(self, node: gs.Node) -> Shape:
        """Of its regions in the batches, where nothing but rows is read and asked for."""
        if node.name not in self._shapes:
            extents = self._extents(self.everything.regions[node.outputs[0].name])
            self._shapes[node.name] = select.shape_of(node, self.everything, *extents, self.size)
        return self._shapes[node.name]

    def _dense(self, node: gs.Node) -> float:
        numbers = sum(_numbers(value) for value in (*node.inputs, *node.outputs))
        weights = sum(_share(v) * prod(v.shape) for v in node.inputs if isinstance(v, gs.Constant)) / self.size
        total = Work(moved=numbers, loaded=weights, nodes=1 / self.size, held=numbers) + self._arithmetic(node)
        return self.rates.seconds(total, self.at)

    def _arithmetic(self, node: gs.Node) -> Work:
        """Of a convolution or matrix product on full maps, without reading its operands and writing its output once."""
        work = flops(node)
        if node.op in ON_INTEGERS:
            return Work(integer=work)
        if node.op == "Conv" or not work:
            return Work(convolved=work)
        depth = work / (2 * _numbers(node.outputs[0]))
        rows = _numbers(node.inputs[0]) / depth * self.size
        return Work(products=work, moved=read_again(work, rows, depth))

    def _paste(self, region: Region, share: float = 1.0) -> float:
        """Seconds to bring a region into its map, channels first, for every position; ``share`` of float32's bytes a number."""
        numbers = share * region.channels * region.y.size * region.x.size
        work = Work(moved=4 * numbers + 2 * numbers / self.size, nodes=20 / self.size, held=2 * numbers)
        return self.rates.seconds(work, self.at)

    @property
    def full(self) -> float:
        """Seconds a position of full inference."""
        return sum(self.dense.values()) + self._paste(self.everything.regions[self.everything.image])

    def fastest(self, plan: Plan, budget: float) -> dict[str, Candidate]:
        """Of the incremental nodes of ``plan``, by name: together they add at most ``budget`` of relative rms error."""
        incremental = [decision.node for decision in plan.decisions if decision.incremental]
        return within_budget({name: self.candidates[name] for name in incremental}, budget)

    def seconds(self, plan: Plan, layouts: Layouts) -> float:
        """A position by ``plan``, its incremental nodes as in ``layouts``."""
        nodes = sum(self._laid_out(node, name, layouts.transitions[node]) for node, name in layouts.lowerings.items())
        return self._tail(plan) + nodes + self._repeated(layouts)

    def _repeated(self, layouts: Layouts) -> float:
        """Starting the operators of micro-batches more than once: a node is about one, rows and indices are two more."""
        more = sum((chain.count - 1) * (len(chain.nodes) + 2) for chain in layouts.microbatches.values())
        return self.rates.seconds(Work(nodes=more / self.size))

    def _laid_out(self, name: str, lowering: str, transitions: Transitions) -> float:
        """A node by a lowering, its price corrected by what the layouts around it are predicted to cost or to spare."""
        key = name, lowering, transitions
        if key not in self._known:
            (candidate,) = (one for one in self.candidates[name] if one.lowering.name == lowering)
            before, after = (self._predicted(self.nodes[name], candidate.lowering, one) for one in (None, transitions))
            self._known[key] = candidate.seconds + after - before
        return self._known[key]

    def _tail(self, plan: Plan) -> float:
        """Seconds a position of the dense nodes, and of bringing to full maps what they read."""
        needed = [
            node
            for node, decision in zip(self.graph.nodes, plan.decisions, strict=True)
            if not decision.incremental and node.name in plan.needed
        ]
        tail = [node for node in needed if not self._is_head(node, plan)]
        # In the order of the graph, so that sums of floats do not depend on that of a set.
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


def _numbers(value: gs.Tensor) -> float:
    """Numbers in an activation for one image, those of 8 bits as a quarter."""
    if isinstance(value, gs.Constant) or value.shape is None:
        return 0
    return _share(value) * numbers_at_least(value)


def _share(value: gs.Tensor) -> float:
    """Bytes of its numbers, over those of float32."""
    return 1 / FLOAT_BYTES if value.dtype in INTEGERS else 1.0


def in_bytes_of(value: gs.Tensor, work: Work) -> Work:
    """``work`` on numbers of the type of ``value``, whose bytes are what moving takes."""
    share = _share(value)
    return replace(work, moved=share * work.moved, loaded=share * work.loaded, held=share * work.held)
