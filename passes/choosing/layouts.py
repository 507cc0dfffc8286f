"""The choice of layouts, before emission: the memory layout of each value's region, micro-batches, and blocked pastes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log2

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.graphs.quantised import INTEGERS
from kcompiler.passes.graphs.values import is_output
from kcompiler.passes.lowering import select
from kcompiler.passes.lowering.heads import is_head, is_pooled
from kcompiler.passes.lowering.layout import ROWS, Held, Layout, Layouts, MicroBatches, Surroundings, Transitions, transitions
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import FLOAT_BYTES, copies_reads
from kcompiler.passes.plan import Plan
from kcompiler.passes.regions.region import Region

Allowed = Callable[[gs.Node], Sequence[Lowering]]
"""The lowerings that may compute a node."""


class Placement:
    """Layouts for one graph and its regions, for any plan and any choice of lowerings."""

    def __init__(self, graph: gs.Graph, everything: Plan, allowed: Allowed | None = None, *, blocked_layout: bool = True) -> None:
        """For ``graph`` and the regions of ``everything``; without ``allowed``, no lowering is replaced by its ``on_maps``.

        ``blocked_layout`` is whether ONNX Runtime convolves in NCHWc (on CPUs), for which micro-batches and blocked pastes are.
        """
        self._blocked_layout = blocked_layout
        self._graph, self._regions, self._allowed = graph, everything.regions, allowed
        self._tensors = graph.tensors()
        self._cells = {name: _cells(region) for name, region in everything.regions.items()}
        self._known: dict[object, tuple[str, Layout]] = {}
        self._transits: dict[object, Transitions] = {}

    def layouts(self, plan: Plan, lowerings: Mapping[str, str], batch: int) -> Layouts:
        """The layouts of ``plan`` with ``lowerings`` (name by incremental node), for batches of ``batch`` positions."""
        nodes = [
            node
            for node, decision in zip(self._graph.nodes, plan.decisions, strict=True)
            if decision.incremental and node.name in plan.needed
        ]
        values, final = {plan.image: ROWS}, dict(lowerings)
        for node in nodes:
            final[node.name], values[node.outputs[0].name] = self._settled(node, values, lowerings[node.name])
        chained = nodes if self._blocked_layout else []
        chains = {chain.nodes[0]: chain for node in chained for chain in self._microbatches(node, values, plan, batch)}
        conversions = {node.name: self._transitions(node, final[node.name], values, plan, batch) for node in nodes}
        blocked = frozenset(name for name in values if self._blocked_layout and self._better_blocked(name, plan))
        return Layouts(final, values, conversions, chains, blocked)

    def alone(self, node: gs.Node, lowering: str, batch: int) -> Layouts:
        """The layouts of ``node`` alone, computed by ``lowering`` from input regions held as rows, for batches of ``batch``."""
        inputs = {value.name: ROWS for value in node.inputs if value.name in self._regions}
        name, layout = self._settled(node, inputs, lowering)
        around = self.surroundings(node, inputs)
        conversions = transitions(around, layout, keeps_maps=False, copies=_copies(around, name, layout, batch))
        return Layouts({node.name: name}, {node.outputs[0].name: layout}, {node.name: conversions})

    def surroundings(self, node: gs.Node, values: Mapping[str, Layout]) -> Surroundings:
        """The surroundings of an incremental node whose inputs are held as in ``values`` (layout by value name)."""
        output = node.outputs[0].name
        region = self._regions[output]
        reads = tuple(
            Held(values[value.name], self._regions[value.name].channels, self._cells[value.name] == self._cells[output])
            if value.name in values and value.name in self._regions
            else None
            for value in node.inputs
        )
        first = next(self._regions[value.name] for value, held in zip(node.inputs, reads, strict=True) if held is not None)
        return Surroundings(
            node=node, reads=reads, windows=select.windows(node, region), region=first, last=region.last,
            channels=region.channels, mean_extent=region.mean_extent,
        )  # fmt: skip

    def _settled(self, node: gs.Node, values: Mapping[str, Layout], lowering: str) -> tuple[str, Layout]:
        """The lowering, or its replacement on maps where that applies, and the layout of its output."""
        key = node.name, lowering, tuple(values.get(value.name) for value in node.inputs)
        if key not in self._known:
            around, chosen = self.surroundings(node, values), select.by_name(node, lowering)
            if chosen.on_maps and around.cell_by_cell and around.first.layout.maps and self._allows(node, chosen.on_maps):
                chosen = select.by_name(node, chosen.on_maps)
            self._known[key] = chosen.name, chosen.layout(around)
        return self._known[key]

    def _allows(self, node: gs.Node, lowering: str) -> bool:
        return self._allowed is not None and any(allowed.name == lowering for allowed in self._allowed(node))

    def _transitions(self, node: gs.Node, lowering: str, values: Mapping[str, Layout], plan: Plan, batch: int) -> Transitions:
        value = node.outputs[0]
        layout, readers = values[value.name], [reader for reader in value.outputs if reader.name in plan.needed]
        keeps_maps = layout.maps and all(self._reads_maps(reader, value, values, plan) for reader in readers)
        key = node.name, lowering, layout, keeps_maps, batch, tuple(values.get(read.name) for read in node.inputs)
        if key not in self._transits:
            around = self.surroundings(node, values)
            keeps_maps = keeps_maps and not is_output(self._graph, value)
            copies = _copies(around, lowering, layout, batch)
            self._transits[key] = transitions(around, layout, keeps_maps=keeps_maps, copies=copies)
        return self._transits[key]

    def _microbatches(self, node: gs.Node, values: Mapping[str, Layout], plan: Plan, batch: int) -> Iterator[MicroBatches]:
        """The chain that runs in micro-batches and starts at ``node``, if ``node`` is a depthwise convolution that starts one."""
        if node.op != "Conv" or not values[node.outputs[0].name].maps:
            return
        around = self.surroundings(node, values)
        if around.cell_by_cell or node.attrs.get("group", 1) != around.first.channels:
            return
        chain = self._chain(node, values, plan)
        convolutions = [link for link in chain if link.op == "Conv"]
        held = 2 * FLOAT_BYTES * around.first.channels * float(np.prod(around.mean_reads))  # as rows, and in NCHWc
        count = micro_batches(held * batch)
        light = _weight_bytes(convolutions) <= assumed.LARGEST_WEIGHTS
        if count >= assumed.FEWEST_MICROBATCHES and len(convolutions) > 1 and light:
            yield MicroBatches(tuple(link.name for link in chain), count)

    def _chain(self, node: gs.Node, values: Mapping[str, Layout], plan: Plan) -> list[gs.Node]:
        """``node`` and its successors on maps up to the first value that is read as rows only.

        Empty if a value before that has several readers, is a graph output, or has a reader that cannot run in micro-batches.
        """
        chain = [node]
        while True:
            (value,) = chain[-1].outputs
            on_maps = [reader for reader in value.outputs if self._reads_maps(reader, value, values, plan)]
            if not on_maps:
                return chain
            reader, *others = (reader for reader in value.outputs if reader.name in plan.needed)
            if others or is_output(self._graph, value) or not _goes_on(reader, value):
                return []
            chain.append(reader)

    def _reads_maps(self, reader: gs.Node, value: gs.Tensor, values: Mapping[str, Layout], plan: Plan) -> bool:
        """Whether ``reader`` takes the region of ``value``, which is held as maps, without converting it to rows."""
        output = reader.outputs[0].name if reader.outputs else ""
        if reader.name not in plan.needed:
            return False
        if output in values:
            return values[output].maps and self._cells[value.name] == self._cells[output]
        region = self._regions[value.name]
        return is_head(reader, region) and is_pooled(region)

    def _better_blocked(self, name: str, plan: Plan) -> bool:
        """Whether dense readers of the pasted map would run in ONNX Runtime's NCHWc layout if the map were in it.

        Convolutions and pools convert any map to NCHWc, other operators run in it only if their inputs are. An AveragePool with a
        1x1 kernel is the identity and converts the map (a MaxPool is not the identity for minus infinity).
        """
        region, value = self._regions[name], self._tensors[name]
        dense = (node for node in value.outputs if node.outputs and node.outputs[0].name not in plan.incremental)
        whole_blocks = not region.last and region.channels % assumed.BLOCK == 0
        return value.dtype not in INTEGERS and whole_blocks and any(node.op in assumed.GO_ON_BLOCKED for node in dense)


def _copies(around: Surroundings, lowering: str, layout: Layout, batch: int) -> bool:
    """Whether ``lowering`` copies the cells that it reads of its cached inputs, not the whole maps, in batches of ``batch``."""
    reads = select.by_name(around.node, lowering).gathered(around, layout)
    return copies_reads(around.region.y.size * around.region.x.size, reads, batch)


def micro_batches(held: float) -> int:
    """The count of micro-batches for a batch whose gathered regions take ``held`` bytes: a power of two, to divide evenly.

    ``held`` follows from the mean extent, and is 0 or negative for regions that are mostly empty because windows skip the patch.
    """
    return min(1 << round(log2(max(held / assumed.CACHE_BYTES, 1))), assumed.MOST_MICROBATCHES)


def _cells(region: Region) -> tuple[object, ...]:
    """A key that is equal for regions of the same cells at every patch position."""
    axes = [spans.at_least_one() for spans in (region.y, region.x)]
    return tuple((spans.size, spans.start.tobytes(), spans.stop.tobytes()) for spans in axes)


def _goes_on(node: gs.Node, value: gs.Tensor) -> bool:
    """Whether ``node`` computes each position of the batch by itself from ``value`` and constants, and can run in NCHWc."""
    alone = node.inputs[0] is value and all(isinstance(other, gs.Constant) for other in node.inputs[1:])
    return alone and node.op in ("Conv", *assumed.BLOCKED_ACTIVATIONS)


def _weight_bytes(convolutions: Sequence[gs.Node]) -> int:
    return sum(value.values.nbytes for node in convolutions for value in node.inputs[1:] if isinstance(value, gs.Constant))
