"""The oracle of threshold clipping: full maps of every position, node after node, kept as uncovered outside of the regions."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnxruntime import InferenceSession

from kcompiler.runtime.inputs.images import cover

PATCH = (4, 6)


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


def capped_by_hand(graph, plan, image, fill, positions):
    """Full maps of every position, node after node; outside of its region every incremental value stays as uncovered."""
    values = {plan.image: cover(image, fill, positions, PATCH)}
    uncovered = {plan.image: np.repeat(image, len(positions), axis=0)}
    for node in graph.nodes:
        name = node.outputs[0].name
        uncovered[name] = node_alone(graph, node, uncovered)
        computed = uncovered[name] if name in plan.frozen else node_alone(graph, node, values)
        if name in plan.incremental:
            region, kept = plan.regions[name], uncovered[name].copy()
            for number, (y, x) in enumerate(positions + np.array([region.y.before, region.x.before])):
                rows, cols = slice(region.y.start[y], region.y.stop[y]), slice(region.x.start[x], region.x.stop[x])
                part = (number, rows, cols) if region.last else (number, slice(None), rows, cols)
                kept[part] = computed[part]
            computed = kept
        values[name] = computed
    return values[graph.outputs[0].name].reshape(len(positions), -1)
