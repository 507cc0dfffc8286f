"""The Loop of a map model: each iteration runs the incremental model on a batch of positions and files their scores.

Iteration 0 covers the image with itself, which gives the outputs of the uncovered image and, if no target is asked for, the
class with the largest of them.

Large weights of matrix products stand in the graph around the body, all others in the body: ONNX Runtime fuses and folds what it
finds inside the body only, and no runtime but the native ones looks for external data of a body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from kcompiler.passes.deployment.batches import Scheduled
from kcompiler.passes.deployment.builder import Builder
from kcompiler.passes.deployment.renamed import rename_tensors
from kcompiler.runtime.bundle.manifest import FILL, POSITIONS, TABLE

BODY = "batch/"
"""Prefix of the tensors in the body: they must not have names of the graph around it."""
PRODUCTS = ("Gemm", "MatMul")
OUTER_BYTES = 1 << 16
"""Size from which weights of matrix products stand in the outer graph."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What is scored.

    Attributes:
        output: name of the model's output.
        classes: K, columns of the output.
        rest_of: for an output that scores class 1 of two, what class 0 is the rest of; None for an output of a column per class.
    """

    output: str
    classes: int
    rest_of: float | None


@dataclass(frozen=True, slots=True)
class _States:
    """What iterations hand on: whether to go on, the class, the scores of all classes uncovered, and the table of scores."""

    names: Sequence[str]
    classes: int
    slots: int

    @property
    def values(self) -> list[onnx.ValueInfoProto]:
        flag, whole, float32 = TensorProto.BOOL, TensorProto.INT64, TensorProto.FLOAT
        kinds = [(flag, []), (whole, [1]), (float32, [1, self.classes]), (float32, [self.slots])]
        return [helper.make_tensor_value_info(name, *kind) for name, kind in zip(self.names, kinds, strict=True)]


def batch_loop(
    path: Path, scheduled: Scheduled, scored: Scored, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], onnx.ModelProto]:
    """The Loop over the batches of ``scheduled``, the weights that stand around it, and the incremental model that it holds.

    Args:
        path: of the incremental model.
        scheduled: batches.
        scored: what is scored.
        inputs: names of the target [1], the table of scores [slots], the first batch [], the number of batches [] and the fills
            [2, H * W, C]: the image itself, and what covers it.
        outputs: names of the class [1], the scores of all classes uncovered [1, K], and the table of scores [slots].
    """
    target, scores, first, count, fills = inputs
    incremental = onnx.load(path)
    graph = incremental.graph
    rename_tensors(graph, _in_body)
    moved = _large_weights(graph)

    number, *before = (f"{BODY}{name}/in" for name in ("number", "going", "target", "uncovered", "scores"))
    body = Builder(f"{BODY}map/")
    slots = scheduled.evaluated(body, number, first, before[-1])
    body("Gather", body.constant(scheduled.positions), scheduled.filled(body, slots), axis=0, name=f"{BODY}{POSITIONS}")
    body("Gather", fills, body("Min", number, body.constant(1)), axis=0, name=f"{BODY}{FILL}")
    ahead = len(body.nodes)
    after = _results(body, scored, number, slots, before, filled=scheduled.least > 1)

    states = [_States(names, scored.classes, scheduled.slots).values for names in (before, after)]
    inside = helper.make_graph(
        [*body.nodes[:ahead], *graph.node, *body.nodes[ahead:]],
        "batch",
        [helper.make_tensor_value_info(number, TensorProto.INT64, []), *states[0]],
        states[1],
        [*body.initializers, *graph.initializer],
        # Inference loses the name of the batch's size in a body. ONNX Runtime then cannot tell that two maps are of one size, and
        # does not fuse their sum into a convolution.
        value_info=[value for value in (*graph.value_info, *graph.input) if not value.name.startswith(TABLE)],
    )
    outer = Builder("map/loop/")
    trips = outer("Add", count, outer.constant(1))
    none = outer.constant(np.zeros((1, scored.classes), np.float32))
    outer.nodes.append(helper.make_node("Loop", [trips, "", target, none, scores], outputs, "map/Loop", body=inside))
    return outer.nodes, [*outer.initializers, *moved], incremental


def _results(body: Builder, scored: Scored, number: str, slots: str, before: Sequence[str], *, filled: bool) -> list[str]:
    """From the outputs of the incremental model to the states after an iteration.

    Where the batch is ``filled``, there may be outputs of more positions than ``slots``; those of the slots come first.
    """
    going, target, uncovered, scores = before
    outputs = f"{BODY}{scored.output}"
    if scored.rest_of is not None:
        outputs = body("Concat", body("Sub", body.number(scored.rest_of), outputs), outputs, axis=1)
    head = body.part(outputs, body.constant(0), body.constant(1))
    largest = body("ArgMax", head, axis=1, keepdims=0)
    chosen = body("Where", body("Less", target, body.constant(0)), largest, target)
    column = body("Reshape", body("Gather", outputs, chosen, axis=1), body.constant([-1]))
    if filled:
        column = body.part(column, body.constant(0), body("Squeeze", body("Shape", slots)))
    first = body("Equal", number, body.constant(0))
    return [
        body("Identity", going),
        body("Identity", chosen),
        body("Where", first, head, uncovered),
        body("ScatterElements", scores, slots, column, axis=0),
    ]


def _in_body(name: str) -> str:
    """Cached activations are read from the graph around; all else is the body's own."""
    return name if name.startswith(TABLE) else f"{BODY}{name}"


def _large_weights(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Takes the large weights of matrix products out of ``graph``, to stand in the graph around it under the same names."""
    read = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
    moved = [one for one in graph.initializer if one.name in read and len(one.raw_data) > OUTER_BYTES]
    kept = [one for one in graph.initializer if one.name not in {other.name for other in moved}]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return moved
