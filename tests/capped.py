"""The oracle of threshold clipping: full maps of every position, node after node, kept as uncovered outside of the regions.

The regions are those of a plan, or by the definition: cells that read what changed, counted one by one, and of those at most a
share of the map's height and width, around what the patch's middle projects to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnxruntime import InferenceSession
from source_file import cover_by_hand

from kcompiler.passes.plan import Plan
from kcompiler.runtime.arrays import FloatArray, IntArray

PATCH = (4, 6)
Boxes = Mapping[str, list[tuple[slice, slice]]]
"""By value, the rows and columns of its region for each position."""


def node_alone(graph: gs.Graph, node: gs.Node, values: dict[str, np.ndarray]) -> np.ndarray:
    """The node's first output, by ONNX Runtime, for a batch of its inputs."""
    names = dict.fromkeys(v.name for v in node.inputs if isinstance(v, gs.Variable) and not v.is_empty())
    inputs = {name: gs.Variable(name, values[name].dtype, values[name].shape) for name in names}
    output = gs.Variable(node.outputs[0].name, node.outputs[0].dtype)
    copied = gs.Node(node.op, node.name, dict(node.attrs), [inputs.get(v.name, v) for v in node.inputs], [output], node.domain)
    alone = gs.Graph([copied], list(inputs.values()), [output], opset=graph.opset)
    session = InferenceSession(gs.export_onnx(alone, do_type_check=False, ir_version=10).SerializeToString())
    (result,) = session.run(None, {name: values[name] for name in inputs})
    return result


def capped_by_hand(graph: gs.Graph, plan: Plan, image: FloatArray, fill: FloatArray, positions: IntArray) -> FloatArray:
    """Full maps of every position, node after node; outside of its region every incremental value stays as uncovered."""
    boxes, last = {}, set()
    for node in graph.nodes:
        if (name := node.outputs[0].name) not in plan.incremental:
            continue
        region = plan.regions[name]
        boxes[name] = [
            (slice(region.y.start[y], region.y.stop[y]), slice(region.x.start[x], region.x.stop[x]))
            for y, x in positions + np.array([region.y.before, region.x.before])
        ]
        last |= {name} if region.last else set()
    covered = cover_by_hand(image[0], positions, fill, PATCH)
    return kept_outside(graph, boxes, image, covered, last=last, frozen=plan.frozen)


def kept_outside(
    graph: gs.Graph,
    boxes: Boxes,
    image: FloatArray,
    covered: FloatArray,
    *,
    last: Collection[str] = (),
    frozen: Collection[str] = (),
) -> FloatArray:
    """The output [N, K] for the ``covered`` images [N, C, H, W], where each value is as uncovered outside of its boxes.

    Channels are last in the values ``last``; the ``frozen`` are as uncovered throughout.
    """
    source = graph.inputs[0].name
    values, uncovered = {source: covered}, {source: np.repeat(image, len(covered), axis=0)}
    for node in graph.nodes:
        name = node.outputs[0].name
        uncovered[name] = node_alone(graph, node, uncovered)
        values[name] = uncovered[name] if name in frozen else node_alone(graph, node, values)
        if name in boxes:
            computed, values[name] = values[name], uncovered[name].copy()
            for number, (rows, columns) in enumerate(boxes[name]):
                part = (number, rows, columns) if name in last else (number, slice(None), rows, columns)
                values[name][part] = computed[part]
    return values[graph.outputs[0].name].reshape(len(covered), -1)


class Tie(Exception):
    """Two regions are as near to what the patch projects to."""


@dataclass(frozen=True)
class Reach:
    """What of an axis of ``size`` cells is recomputed: from ``start`` to before ``stop``; the patch projects to ``centre``."""

    start: int
    stop: int
    size: int
    centre: float

    def through(self, kernel: int, stride: int, dilation: int, pad: int, outputs: int) -> Reach:
        """Outputs of a window that read any of it, from the first to the last."""
        taps = [[o * stride - pad + t * dilation for t in range(kernel)] for o in range(outputs)]
        reading = [o for o, cells in enumerate(taps) if any(self.start <= cell < self.stop for cell in cells)] or [0, -1]
        centre = (self.centre - sum(taps[0]) / kernel) / stride
        return Reach(reading[0], reading[-1] + 1, outputs, centre)

    def merged(self, other: Reach) -> Reach:
        assert (self.size, self.centre) == (other.size, other.centre)
        if self.start == self.stop or other.start == other.stop:
            return other if self.start == self.stop else self
        return Reach(min(self.start, other.start), max(self.stop, other.stop), self.size, self.centre)

    def capped(self, share: float) -> Reach:
        """At most a ``share`` of the axis (rounded, one cell at the least): the part of this that is nearest to the centre.

        Raises:
            Tie: two parts are.
        """
        limit = max(1, round(share * self.size))
        if self.stop - self.start <= limit:
            return self
        away = {first: abs(first + (limit - 1) / 2 - self.centre) for first in range(self.start, self.stop - limit + 1)}
        (first, least), *others = sorted(away.items(), key=lambda one: one[1])
        if others and others[0][1] - least < 1e-9:
            raise Tie
        return Reach(first, first + limit, self.size, self.centre)


def capped_by_definition(
    graph: gs.Graph, shares: Callable[[str], float], image: FloatArray, fill: FloatArray, positions: IntArray
) -> tuple[IntArray, FloatArray]:
    """The positions without a :class:`Tie`, [n, 2], and the output [n, K] at these of the file's own graph, its shapes inferred.

    Nodes are capped at ``shares`` of their maps, by name. All up to a Flatten are convolutions, pools, sums, or go cell by cell.
    """
    chosen, boxes = [], []
    for number, position in enumerate(positions.tolist()):
        try:
            boxes.append(_regions(graph, shares, position, image.shape[2:]))
            chosen.append(number)
        except Tie:
            continue
    by_value = {name: [one[name] for one in boxes] for name in boxes[0]}
    covered = cover_by_hand(image[0], positions[chosen], fill, PATCH)
    return positions[chosen], kept_outside(graph, by_value, image, covered)


def _regions(
    graph: gs.Graph, shares: Callable[[str], float], position: list[int], image: tuple[int, ...]
) -> dict[str, tuple[slice, slice]]:
    """The region of every value that is a map, for one position."""
    axes = zip(position, PATCH, image, strict=True)
    reaches = {
        graph.inputs[0].name: [
            Reach(max(first, 0), min(first + side, size), size, first + (side - 1) / 2) for first, side, size in axes
        ]
    }
    for node in graph.nodes:
        if node.op == "Flatten":
            break
        read = [reaches[value.name] for value in node.inputs if value.name in reaches]
        windowed, made = node.op in ("Conv", "MaxPool", "AveragePool"), node.outputs[0].shape[2:]
        found = []
        for axis in (0, 1):
            reach = read[0][axis]
            if windowed:
                kernel, stride, dilation = (
                    node.attrs.get(name, [1, 1])[axis] for name in ("kernel_shape", "strides", "dilations")
                )
                reach = reach.through(kernel, stride, dilation, node.attrs.get("pads", [0] * 4)[axis], made[axis])
            for other in read[1:]:
                reach = reach.merged(other[axis])
            found.append(reach.capped(shares(node.name)))
        reaches[node.outputs[0].name] = found
    return {name: (slice(y.start, y.stop), slice(x.start, x.stop)) for name, (y, x) in reaches.items()}
