"""Propagation of the patch through the graph: the region of every value that rules reach. What is dense is for the plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import reads
from kcompiler.passes.graphs.quantised import gives_same_bits, quantised_later
from kcompiler.passes.regions.cells import GATE, MERGES
from kcompiler.passes.regions.geometry import Spans
from kcompiler.passes.regions.region import NoRule, Region
from kcompiler.passes.regions.rules import apply_rule


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Caps on the region of each node: the paper's tau. It is exact if all are 1 and no gate is frozen.

    Changed cells outside of a capped region keep their cached values (projective field thresholding, SIGMOD 2019, section 4.1).

    Attributes:
        everywhere: fraction of a map's height and width, in (0, 1].
        nodes: fractions for single nodes, by node name.
        freeze_gates: whether a gate (a value per channel computed from the whole map and merged with one, as in
            squeeze-and-excitation and global context) keeps its value for the uncovered image, whatever reads it.
    """

    everywhere: float = 1.0
    nodes: Mapping[str, float] = field(default_factory=dict)
    freeze_gates: bool = False

    def of(self, node: str) -> float:
        return self.nodes.get(node, self.everywhere)


EXACT = Thresholds()


@dataclass(frozen=True, slots=True)
class Step:
    """The result of propagation at one node.

    Attributes:
        node: name.
        operator: type.
        output: name of the first output, empty if the node has none.
        reads: names of the inputs that have regions.
        share: mean fraction of its map that the output's region covers; 0 if the output has no region.
        reason: why the output has no region, empty if it has one.
        follows: name of the input that is the reason, empty if the node itself is.
    """

    node: str
    operator: str
    output: str
    reads: tuple[str, ...]
    share: float
    reason: str
    follows: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """The regions of one graph for one patch size.

    Attributes:
        image: name of the image input.
        patch: (height, width) in pixels.
        regions: by value name, wherever rules reach, also behind dense nodes.
        thresholds: the caps applied.
        frozen: number of channels of each frozen gate, by value name.
        needed: names of the nodes that the outputs depend on other than through frozen gates.
    """

    image: str
    patch: tuple[int, int]
    regions: Mapping[str, Region]
    thresholds: Thresholds
    frozen: Mapping[str, int]
    needed: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation(Regions):
    """The regions, and one step per node in graph order, from which the plan decides what is incremental."""

    steps: tuple[Step, ...]


def propagate(graph: gs.Graph, patch: tuple[int, int], thresholds: Thresholds = EXACT) -> Propagation:
    """Propagates the region of a patch (height, width) through ``graph`` (topologically sorted, normalised, one image input)."""
    image = graph.inputs[0]
    _, channels, height, width = image.shape
    regions = {image.name: Region(channels, Spans.of_patch(height, patch[0]), Spans.of_patch(width, patch[1]))}
    depends, frozen, steps = {image.name}, dict[str, int](), []
    quantised_by = quantised_later(graph)
    for node in graph.nodes:
        read = tuple(value.name for value in node.inputs if value.name in regions)
        output, share, follows = node.outputs[0].name if node.outputs else "", 0.0, ""
        if not any(value.name in depends for value in node.inputs):
            reason = "does not depend on the image"
        else:
            depends |= {value.name for value in node.outputs if not value.is_empty()}
            behind = next((quantised_by[value.name] for value in node.outputs if value.name in quantised_by), "")
            if behind and not gives_same_bits(node):
                reason = f"float32 sums that {behind} (QuantizeLinear) rounds to steps, of which another order may tip one"
            else:
                frozen |= _gates(node, regions, depends) if thresholds.freeze_gates else {}
                reason, follows = _enter(node, regions, depends, thresholds, frozen)
                share = mean_share(regions[output]) if not reason else 0.0
        steps.append(Step(node.name, node.op, output, read, share, reason, follows))
    return Propagation(
        image=image.name, patch=patch, regions=regions, thresholds=thresholds, frozen=frozen, needed=_needed(graph, frozen),
        steps=tuple(steps),
    )  # fmt: skip


def _gates(node: gs.Node, regions: Mapping[str, Region], depends: Set[str]) -> dict[str, int]:
    """Channels of the gates that ``node`` merges with a region: inputs of a single cell that depend on the image, by name."""
    if node.op not in MERGES or not any(value.name in regions for value in node.inputs):
        return {}
    gates = {}
    for value in node.inputs:
        shape = value.shape
        if value.name not in depends or value.name in regions or shape is None or len(shape) != 4:
            continue
        if value.dtype not in (np.float32, np.bool_):
            continue
        if isinstance(shape[1], int) and shape[2:] == [1, 1]:
            gates[value.name] = shape[1]
        elif isinstance(shape[3], int) and shape[1:3] == [1, 1]:
            gates[value.name] = shape[3]
    return gates


def _enter(
    node: gs.Node, regions: dict[str, Region], depends: Set[str], thresholds: Thresholds, frozen: Mapping[str, int]
) -> tuple[str, str]:
    """Adds the region of the node's output and returns ("", ""), or returns (reason, input that is the reason) without one."""
    gates = [value.name for value in node.inputs if value.name in frozen]
    everywhere = [v.name for v in node.inputs if v.name in depends and v.name not in regions and v.name not in gates]
    if everywhere:
        return f"reads {everywhere[0]}, which changes everywhere", everywhere[0]
    if gates and (node.op not in MERGES or not any(value.name in regions for value in node.inputs)):
        return f"reads the frozen gate {gates[0]}, and no map beside it", ""
    if 0 in (node.outputs[0].shape or ())[1:]:
        return "its map has no cells", ""
    try:
        inputs = [GATE if value.name in gates else regions.get(value.name) for value in node.inputs]
        regions[node.outputs[0].name] = apply_rule(node, inputs).capped(thresholds.of(node.name))
    except NoRule as why:
        return str(why), ""
    return "", ""


def _needed(graph: gs.Graph, frozen: Collection[str]) -> frozenset[str]:
    """Names of the nodes that the graph outputs depend on, not counting dependencies through ``frozen`` values."""
    wanted = {value.name for value in graph.outputs if value.name not in frozen}
    needed = set()
    for node in reversed(graph.nodes):
        if any(value.name in wanted for value in node.outputs):
            needed.add(node.name)
            wanted |= {value.name for value in reads(node) if value.name not in frozen}
    return frozenset(needed)


def mean_share(region: Region) -> float:
    """Mean fraction of the map that the region covers, over all origins of patches inside the image."""
    y, x = (float(np.mean(spans.lengths[spans.whole])) / spans.size for spans in (region.y, region.x))
    return y * x
