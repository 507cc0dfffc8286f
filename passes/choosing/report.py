"""The report: the decision on every node, its lowering and layout, and the predicted gain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod

import onnx_graphsurgeon as gs

from kcompiler.passes.choosing import costs
from kcompiler.passes.choosing.choice import Choice
from kcompiler.passes.plan import Decision, make_plan
from kcompiler.passes.rewriting.rewrite import Rewritten
from kcompiler.passes.source.origins import Origins
from kcompiler.runtime.bundle.report import UPDATED, NodeReport, Redundancy, Report

PATCHES = (4, 8, 16, 32, 64)
"""Sides, in pixels, of the patches whose redundancy is always reported, beside that of the patch compiled for."""
STRIDE = 4
"""Stride of the grid over which the tight redundancy ratio is averaged."""


def make_report(
    normalised: gs.Graph, graph: gs.Graph, choice: Choice, rewritten: Rewritten, source_operators: Mapping[str, int],
    origins: Origins,
) -> Report:  # fmt: skip
    """Describes ``rewritten``, emitted from ``graph`` by ``choice``; FLOPs and redundancy are those of ``normalised``."""
    plan, stems = choice.plan, origins.find(graph)
    nodes = zip(graph.nodes, plan.decisions, strict=True)
    weights = [tensor for tensor in normalised.tensors().values() if isinstance(tensor, gs.Constant) and tensor.dtype.kind == "f"]
    bound = make_plan(normalised, plan.patch)
    return Report(
        source_operators=dict(source_operators),
        normalised_operators=_operators(normalised),
        incremental_operators=_operators(rewritten.graph),
        parameters=sum(prod(tensor.shape) for tensor in weights),
        flops=sum(costs.flops(node) for node in normalised.nodes),
        redundancy_paper=costs.redundancy_paper(normalised, bound),
        redundancy_tight=costs.redundancy_tight(normalised, bound, STRIDE),
        redundancy_stride=STRIDE,
        bytes_per_position=costs.bytes_per_position(graph, plan, choice.layouts.lowerings),
        bytes_per_batch=costs.bytes_per_batch(plan, rewritten.cached),
        table_bytes=costs.table_bytes(plan, rewritten.cached),
        redundancies=_redundancies(normalised),
        predicted_seconds=choice.seconds,
        predicted_full_seconds=choice.full_seconds,
        predicted_speedup=choice.full_seconds / choice.seconds,
        transform_error=choice.error,
        largest_error=None,
        nodes=tuple(_node(node, decision, choice, rewritten, stems[node.name]) for node, decision in nodes),
    )


def _redundancies(normalised: gs.Graph) -> tuple[Redundancy, ...]:
    """The redundancy ratios for the patches of :data:`PATCHES` that fit into the image."""
    redundancies = []
    for side in PATCHES:
        if side <= min(normalised.inputs[0].shape[2:]):
            plan = make_plan(normalised, (side, side))
            paper, tight = costs.redundancy_paper(normalised, plan), costs.redundancy_tight(normalised, plan, STRIDE)
            redundancies.append(Redundancy(patch=side, paper=paper, tight=tight))
    return tuple(redundancies)


def _operators(graph: gs.Graph) -> dict[str, int]:
    return dict(Counter(node.op for node in graph.nodes).most_common())


def _node(node: gs.Node, decision: Decision, choice: Choice, rewritten: Rewritten, source: str) -> NodeReport:
    output, layouts = node.outputs[0].name, choice.layouts
    region = choice.plan.regions.get(output)
    shape = node.outputs[0].shape
    is_map = shape is not None and len(shape) == 4 and all(isinstance(size, int) for size in shape[2:])
    return NodeReport(
        node=node.name,
        operator=node.op,
        source=source,
        incremental=decision.incremental,
        lowering=layouts.lowerings[node.name] if decision.incremental else "",
        layout=str(layouts.values[output]) if decision.incremental else "",
        copies=decision.incremental and layouts.transitions[node.name].copies,
        microbatches=next((chain.count for chain in layouts.microbatches.values() if node.name in chain.nodes), 1),
        reason=UPDATED if node.name in rewritten.heads else decision.reason,
        follows=decision.follows,
        updated=node.name in rewritten.heads,
        map=(shape[2], shape[3]) if is_map else None,
        extent=(int(region.y.lengths.max()), int(region.x.lengths.max())) if region is not None else None,
        share=costs.tight_share(region, 1) if region is not None else 1.0,
        flops=costs.flops(node),
    )
