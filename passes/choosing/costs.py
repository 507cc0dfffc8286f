"""FLOPs, redundancy ratios and memory of a plan, for the report. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.quantised import WEIGHTS
from kcompiler.passes.graphs.values import known_sizes, numbers_at_least
from kcompiler.passes.lowering.select import RESAMPLING, by_name, shape_of
from kcompiler.passes.plan import Plan
from kcompiler.passes.regions.geometry import Spans
from kcompiler.passes.regions.region import Region
from kcompiler.passes.regions.windows import slides, windows_of

FLOAT_BYTES = 4
CONVOLUTIONS = ("Conv", "QLinearConv", "ConvInteger")


def flops(node: gs.Node) -> int:
    """FLOPs of a convolution or fully connected layer for one image (2 per multiply-add); 0 for other nodes."""
    place = WEIGHTS.get(node.op)
    if place is None or not isinstance(node.inputs[place], gs.Constant):
        return 0
    weights, sizes = node.inputs[place].shape, known_sizes(node.outputs[0].shape)
    if sizes is None:
        return 0
    transposed = node.op in CONVOLUTIONS or node.attrs.get("transB", 0)
    depth = prod(weights[1:]) if transposed else weights[-2:][0]
    return 2 * int(depth) * prod(sizes)


def tight_share(region: Region, stride: int) -> float:
    """Mean fraction of the map that the region covers, over the grid of all whole patches at ``stride``."""

    def axis(spans: Spans) -> float:
        return float(np.mean(spans.lengths[spans.whole][::stride])) / spans.size

    return axis(region.y) * axis(region.x)


def redundancy_tight(graph: gs.Graph, plan: Plan, stride: int) -> float:
    """Full FLOPs over mean recomputed FLOPs, over the grid of ``stride``, with exact spans."""
    shares = {name: tight_share(region, stride) for name, region in plan.regions.items()}
    return _redundancy(graph, shares)


def redundancy_paper(graph: gs.Graph, plan: Plan) -> float:
    """Full FLOPs over recomputed FLOPs as the paper counts them (SIGMOD 2019, section 3): one region extent for all positions.

    A layer maps the extent p to min(map, ceil((p + k - 1) / s)); merged branches take the largest extent.
    """
    widths = {plan.image: plan.patch}
    for node in graph.nodes:
        output = node.outputs[0].name if node.outputs else ""
        if output not in plan.regions:
            continue
        inputs = [widths[value.name] for value in node.inputs if value.name in widths]
        if slides(node):
            y, x = windows_of(node)
            widths[output] = (y.padded_width(inputs[0][0]), x.padded_width(inputs[0][1]))
        elif node.op in RESAMPLING:
            old, new = (plan.regions[name].map for name in (node.inputs[0].name, output))
            height, width = (-(-size * after // before) for size, after, before in zip(inputs[0], new, old, strict=True))
            widths[output] = min(new[0], height), min(new[1], width)
        else:
            widths[output] = (max(height for height, _ in inputs), max(width for _, width in inputs))
    shares = {name: h * w / (plan.regions[name].y.size * plan.regions[name].x.size) for name, (h, w) in widths.items()}
    return _redundancy(graph, shares)


def _redundancy(graph: gs.Graph, shares: Mapping[str, float]) -> float:
    work = [(flops(node), shares.get(node.outputs[0].name, 1.0)) for node in graph.nodes if node.outputs]
    recomputed = sum(count * share for count, share in work)
    return sum(count for count, _ in work) / recomputed if recomputed else 1.0


def bytes_per_position(graph: gs.Graph, plan: Plan, lowerings: Mapping[str, str]) -> int:
    """Estimated memory per position at the worst node: its inputs, twice (they are read and copied), and its outputs."""
    largest = 1.0
    incremental = {decision.node for decision in plan.decisions if decision.incremental}
    for node in graph.nodes:
        whole = node.name not in incremental
        read = sum(_elements(plan, value, whole) for value in node.inputs)
        held = float(2 * read + sum(_elements(plan, value, whole) for value in node.outputs))
        if node.name in lowerings:
            region = plan.regions[node.outputs[0].name]
            h, w = (np.array([spans.lengths.max()]) for spans in (region.y, region.x))
            held = max(held, read + by_name(node, lowerings[node.name]).work(shape_of(node, plan, h, w, 1)).held)
        largest = max(largest, held)
    # A graph output that is a region is pasted into its map, transposed and fetched: three copies.
    pasted = (3.0 * _elements(plan, value, True) for value in graph.outputs if value.name in plan.incremental)
    largest = max(largest, *pasted, 1.0)
    return int(FLOAT_BYTES * largest)


def _elements(plan: Plan, value: gs.Tensor, whole: bool) -> int:
    """Elements of a value for one position: of its map if ``whole`` (for a dense node), else of its region if it has one."""
    if isinstance(value, gs.Constant) or value.shape is None:
        return 0
    if value.name in plan.incremental and not whole:
        region = plan.regions[value.name]
        return region.channels * int(region.y.lengths.max()) * int(region.x.lengths.max())
    return numbers_at_least(value)


def bytes_per_batch(plan: Plan, cached: tuple[str, ...]) -> int:
    """Bytes of the largest cached activation: each batch copies it when concatenating it with the updated regions."""
    return max((table_bytes(plan, (name,)) for name in cached), default=0)


def table_bytes(plan: Plan, cached: tuple[str, ...]) -> int:
    """Bytes of the cached activations."""
    regions = [plan.regions[name] for name in cached if name in plan.regions]
    gates = sum(FLOAT_BYTES * plan.frozen[name] for name in cached if name in plan.frozen)
    return gates + sum(FLOAT_BYTES * r.channels * r.y.size * r.x.size for r in regions)
