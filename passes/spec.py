"""Invariants between stages, checked in every compilation: each check is a single pass over the nodes.

A violated invariant is a defect of the stage before the check. It is reported there, not where a later stage fails.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import reads, subgraphs
from kcompiler.passes.graphs.values import known_sizes
from kcompiler.passes.normalising.pads import slides_over_known_cells
from kcompiler.passes.plan import Plan
from kcompiler.passes.rewriting.rewrite import Rewritten
from kcompiler.runtime.bundle.manifest import OWN_NAMES, PREFIXES, TABLE
from kcompiler.runtime.errors import CheckFailed

OLDEST_OPSET = 18


class BrokenSpec(CheckFailed):
    """A stage violated an invariant that the next stage relies on."""


def check_normalised(graph: gs.Graph) -> None:
    """After ``normalising``: one float32 image of known size, unique names, none of them reserved, sorted, explicit pads.

    Raises:
        BrokenSpec: an invariant does not hold.
    """
    _check(len(graph.inputs) == 1, f"{len(graph.inputs)} inputs, not the image alone")
    image = graph.inputs[0]
    _check(image.dtype == np.float32, f"the image {image.name} is {image.dtype}")
    _check(len(known_sizes(image.shape) or ()) == 3, f"the image {image.name} has the shape {image.shape}")
    _check(graph.opset >= OLDEST_OPSET, f"opset {graph.opset}")
    for name in graph.tensors():
        _check(name not in OWN_NAMES and not name.startswith(PREFIXES), f"{name} is the name of an input of compiled models")
    _check_sorted(graph)
    _check_names(graph)
    for node in graph.nodes if not any(subgraphs(graph)) else ():
        explicit = node.attrs.get("auto_pad", "NOTSET") == "NOTSET"
        _check(explicit or not slides_over_known_cells(node), f"{node.name} has auto_pad")


def check_plan(graph: gs.Graph, plan: Plan) -> None:
    """After ``plan``: a decision for each node in order, incremental nodes read incremental values, regions lie in their maps.

    Raises:
        BrokenSpec: an invariant does not hold.
    """
    _check([decision.node for decision in plan.decisions] == [node.name for node in graph.nodes], "decisions are of other nodes")
    _check(plan.incremental <= set(plan.regions), "a value is incremental and has no region")
    depends = {plan.image}
    for node, decision in zip(graph.nodes, plan.decisions, strict=True):
        read = [value.name for value in reads(node) if value.name in depends]
        depends |= {value.name for value in node.outputs if read and not value.is_empty()}
        _check(decision.incremental != bool(decision.reason), f"{node.name} is incremental, or has a reason not to be, not both")
        if decision.incremental:
            dense = [name for name in read if name not in plan.incremental and name not in plan.frozen]
            _check(not dense, f"{node.name} is incremental and reads {dense}, which is not")
            _check(node.outputs[0].name in plan.incremental, f"{node.name} is incremental, its output is not")
    for name, region in plan.regions.items():
        for spans in (region.y, region.x):
            inside = (spans.start >= 0) & (spans.start <= spans.stop) & (spans.stop <= spans.size)
            _check(bool(inside.all()), f"the region of {name} leaves its map of {spans.size} cells")


def check_incremental(source: gs.Graph, rewritten: Rewritten) -> None:
    """After ``rewriting``: inputs are positions, a class, fill, cached activations; outputs the source's; sorted, unique names.

    Raises:
        BrokenSpec: an invariant does not hold.
    """
    graph = rewritten.graph
    expected = {*OWN_NAMES, *(TABLE + name for name in rewritten.cached)}
    names = [value.name for value in graph.inputs]
    _check(len(names) == len(set(names)) and set(names) <= expected, f"inputs are {names}, expected some of {sorted(expected)}")
    outputs = [value.name for value in source.outputs]
    _check([value.name for value in graph.outputs] == outputs, f"outputs are not the source's {outputs}")
    if not any(subgraphs(graph)):
        _check_sorted(graph)
    _check_names(graph)


def _check_names(graph: gs.Graph) -> None:
    nodes = [node.name for node in graph.nodes]
    _check(len(nodes) == len(set(nodes)), "two nodes have one name")
    outputs = [value.name for node in graph.nodes for value in node.outputs if not value.is_empty()]
    _check(len(outputs) == len(set(outputs)), "two nodes make values of one name")


def _check_sorted(graph: gs.Graph) -> None:
    """Topological order: every input of a node is a graph input, a constant, or an output of an earlier node."""
    defined = {id(value) for value in graph.inputs}
    for node in graph.nodes:
        for value in _variables(node):
            _check(id(value) in defined, f"{node.name} reads {value.name}, which is made later or not at all")
        defined |= {id(value) for value in node.outputs}
    for value in graph.outputs:
        _check(id(value) in defined or isinstance(value, gs.Constant), f"the output {value.name} is not made")


def _variables(node: gs.Node) -> Iterator[gs.Variable]:
    return (value for value in node.inputs if isinstance(value, gs.Variable) and not value.is_empty())


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenSpec(f"{otherwise}. This is a defect of kcompiler: please report it with the model")
