"""The map model: a baseline pass, then one Loop over batches of positions, whose scores become the heat map.

Iteration 0 covers the image with itself, which gives the outputs of the uncovered image and, if no target is asked for, the
class with the largest of them. Each further iteration evaluates one batch. Which batches a call evaluates is an input: calls that
share them out run on threads, show progress, and can be cancelled in between.

Source of the two graphs: a bundle's variant. Weights of matrix products stand in the outer graph, in a file; all others in the
body of the Loop. ONNX Runtime fuses and folds what it finds inside the body only, and no runtime but the native ones looks for
external data of a body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kcompiler.passes.deployment.renamed import rename_tensors
from kcompiler.passes.rewriting.store import WeightsFile, external_tensor
from kcompiler.runtime.arrays import AnyArray, DoubleArray, IntArray
from kcompiler.runtime.bundle.manifest import FILL, POSITIONS, TABLE, Manifest, Variant
from kcompiler.runtime.inputs.positions import Grid

IMAGE, COLOUR, TARGET, BATCHES = "image", "fill", "target", "batches"
"""Names of the inputs."""
MAP, DROP, CHOSEN, UNCOVERED = "map", "drop", "class", "uncovered"
"""Names of the outputs."""
BODY = "batch/"
"""Prefix of the tensors in the body of the Loop: they must not have names of the graph around it."""
PRODUCTS = ("Gemm", "MatMul")
OUTER_BYTES = 1 << 16
"""Size from which weights of matrix products stand in the outer graph."""
INLINE_BYTES = 1024
"""Size from which initializers of the outer graph stand in the file of weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Scheduled:
    """A grid's positions in the batches that they are evaluated in.

    Attributes:
        grid: all positions.
        parts: indices into the grid's positions, batch by batch.
    """

    grid: Grid
    parts: Sequence[IntArray]

    @property
    def order(self) -> IntArray:
        """Indices into the grid's positions, int64 [N], in the order of evaluation."""
        return np.concatenate(self.parts)

    @property
    def starts(self) -> IntArray:
        """Where in ``order`` each batch begins, int64 [batches + 1]; the last is N."""
        return np.cumsum([0, *map(len, self.parts)])


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


class _Graph:
    """Nodes and initializers under construction."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"{self.prefix}{operator}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], f"{self.prefix}{operator}_{len(self.nodes)}", **attributes)
        )
        return output

    def constant(self, values: AnyArray | Sequence[int] | int, name: str = "") -> str:
        array = values if isinstance(values, np.ndarray) else np.asarray(values, np.int64)
        name = name or f"{self.prefix}constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


def write_map_model(
    folder: Path, manifest: Manifest, variant: Variant, scheduled: Scheduled, scored: Scored, path: Path, weights: WeightsFile
) -> None:
    """Writes the map model of a bundle's variant to ``path``, its large weights to the file of ``weights`` beside it.

    Args:
        folder: the bundle's.
        manifest: the bundle's.
    """
    baseline, incremental = (onnx.load(folder / name) for name in (variant.baseline, variant.incremental))
    outer, body = _Graph("map/"), _Graph(f"{BODY}map/")
    channels, height, width = manifest.shape
    rename_tensors(baseline.graph, lambda name: IMAGE if name == manifest.image else _in_baseline(name))
    incremental.graph.value_info.extend([*known_shapes(folder / variant.incremental), *incremental.graph.input])
    rename_tensors(incremental.graph, _in_body)

    image_rows = outer("Reshape", outer("Transpose", IMAGE, perm=[0, 2, 3, 1]), outer.constant([1, height * width, channels]))
    colour_rows = outer(
        "Expand", outer("Reshape", COLOUR, outer.constant([1, 1, channels])), outer.constant([1, height * width, 1])
    )
    fills = outer("Concat", image_rows, colour_rows, axis=0)
    first, count = (outer("Gather", BATCHES, outer.constant(number)) for number in (0, 1))

    carried = _evaluation(body, scheduled, scored, first, fills)
    moved = _share_weights(incremental.graph)
    loop = helper.make_graph(
        [*body.nodes[: carried.before], *incremental.graph.node, *body.nodes[carried.before :]],
        "batch",
        [*(helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in carried.inputs)],
        [*(helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in carried.outputs)],
        [*body.initializers, *incremental.graph.initializer],
        value_info=[value for value in incremental.graph.value_info if not value.name.startswith(TABLE)],
    )
    states = [
        TARGET,
        outer.constant(np.zeros((1, scored.classes), np.float32)),
        outer.constant(np.zeros(0, np.float32)),
    ]
    results = [CHOSEN, UNCOVERED, "map/scores"]
    trips = outer("Add", count, outer.constant(1))
    outer.nodes.append(helper.make_node("Loop", [trips, "", *states], results, "map/Loop", body=loop))
    _as_map(outer, manifest, scheduled, first, count)

    shape = {IMAGE: [1, *manifest.shape], COLOUR: [channels], TARGET: [1], BATCHES: [2]}
    kinds = {IMAGE: TensorProto.FLOAT, COLOUR: TensorProto.FLOAT, TARGET: TensorProto.INT64, BATCHES: TensorProto.INT64}
    made = {MAP: [*scheduled.grid.shape], DROP: [height, width], UNCOVERED: [1, scored.classes]}
    graph = helper.make_graph(
        [*baseline.graph.node, *outer.nodes],
        "heat map",
        [helper.make_tensor_value_info(name, kinds[name], shape[name]) for name in shape],
        [
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in made.items()),
            helper.make_tensor_value_info(CHOSEN, TensorProto.INT64, [1]),
        ],
        [*baseline.graph.initializer, *outer.initializers, *moved],
    )
    opsets = {one.domain: one.version for model in (baseline, incremental) for one in model.opset_import}
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*one) for one in opsets.items()], ir_version=incremental.ir_version
    )
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.nbytes >= INLINE_BYTES and values.dtype.kind == "f":
            tensor.CopyFrom(external_tensor(tensor.name, values, *weights.add(values)))
    weights.flush()
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)


def known_shapes(path: Path) -> Sequence[onnx.ValueInfoProto]:
    """Shapes of the tensors of an incremental model, with its batch by name.

    Inference loses that name in the body of a Loop, whose positions are a slice, and ONNX Runtime then cannot tell that two
    maps are of one size, which it must to fuse their sum into a convolution.
    """
    model = onnx.load(path, load_external_data=False)
    return list(onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info)


def _in_baseline(name: str) -> str:
    return name if name.startswith(TABLE) else f"baseline/{name}"


def _in_body(name: str) -> str:
    """Cached activations are read from the graph around; all else is the body's own."""
    return name if name.startswith(TABLE) else f"{BODY}{name}"


@dataclass(frozen=True, slots=True)
class _Carried:
    """The body's own nodes: so many before those of the incremental model; and its inputs and outputs."""

    before: int
    inputs: Sequence[tuple[str, int, Sequence[int | str]]]
    outputs: Sequence[tuple[str, int, Sequence[int | str]]]


def _evaluation(body: _Graph, scheduled: Scheduled, scored: Scored, first: str, fills: str) -> _Carried:
    """The body around the incremental model: from the number of an iteration to positions and fill, from outputs to scores."""
    number, going, target, uncovered, scores = (f"{BODY}{name}/in" for name in ("number", "going", TARGET, UNCOVERED, "scores"))
    uncovered_first = body("Equal", number, body.constant(0))
    ordered = np.concatenate([np.zeros((1, 2), np.int64), scheduled.grid.positions[scheduled.order]])
    starts = body.constant(np.concatenate([[0], scheduled.starts + 1]))
    slot = body("Where", uncovered_first, body.constant(0), body("Add", number, first))
    start, stop = (
        body("Reshape", body("Gather", starts, index), body.constant([1]))
        for index in (slot, body("Add", slot, body.constant(1)))
    )
    body("Slice", body.constant(ordered), start, stop, body.constant([0]), name=f"{BODY}{POSITIONS}")
    body("Gather", fills, body("Min", number, body.constant(1)), axis=0, name=f"{BODY}{FILL}")
    before = len(body.nodes)

    outputs = f"{BODY}{scored.output}"
    if scored.rest_of is not None:
        rest = body("Sub", body.constant(np.array(scored.rest_of, np.float32)), outputs)
        outputs = body("Concat", rest, outputs, axis=1)
    head = body("Slice", outputs, body.constant([0]), body.constant([1]), body.constant([0]))
    largest = body("ArgMax", head, axis=1, keepdims=0)
    chosen = body("Where", body("Less", target, body.constant(0)), largest, target)
    column = body("Reshape", body("Gather", outputs, chosen, axis=1), body.constant([-1]))
    results = [
        body("Identity", going),
        body("Identity", chosen),
        body("Where", uncovered_first, head, uncovered),
        body("Concat", scores, column, axis=0),
    ]
    flag, whole, float32 = TensorProto.BOOL, TensorProto.INT64, TensorProto.FLOAT
    states = [(flag, []), (whole, [1]), (float32, [1, scored.classes])]
    given = zip((going, target, uncovered), states, strict=True)
    returned = zip(results, states, strict=False)
    return _Carried(
        before,
        [(number, whole, []), *((name, *state) for name, state in given), (scores, float32, ["evaluated"])],
        [*((name, *state) for name, state in returned), (results[-1], float32, ["evaluated and more"])],
    )


def _share_weights(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Takes the large weights of matrix products out of ``graph``, to stand in the graph around it under the same names."""
    read = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
    moved = [one for one in graph.initializer if one.name in read and len(one.raw_data) > OUTER_BYTES]
    kept = [one for one in graph.initializer if one.name not in {other.name for other in moved}]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return moved


def _as_map(outer: _Graph, manifest: Manifest, scheduled: Scheduled, first: str, count: str) -> None:
    """From scores in the order of evaluation, the uncovered one in front, to the map, and its drop at the image's size."""
    evaluated = outer("Slice", "map/scores", outer.constant([1]), outer.constant([np.iinfo(np.int64).max]), outer.constant([0]))
    starts = outer.constant(scheduled.starts)
    ends = (outer("Reshape", outer("Gather", starts, at), outer.constant([1])) for at in (first, outer("Add", first, count)))
    places = outer("Slice", outer.constant(scheduled.order), *ends, outer.constant([0]))
    nowhere = outer.constant(np.full(len(scheduled.order), np.nan, np.float32))
    flat = outer("ScatterElements", nowhere, places, evaluated, axis=0)
    outer("Reshape", flat, outer.constant([*scheduled.grid.shape]), name=MAP)

    unoccluded = outer("Reshape", outer("Gather", UNCOVERED, CHOSEN, axis=1), outer.constant([1, 1]))
    drop = outer("Sub", unoccluded, MAP)
    missing = outer("IsNaN", drop)
    zero = outer.constant(np.array(0, np.float32))
    axes = ((scheduled.grid.ys, manifest.patch[0], manifest.shape[1]), (scheduled.grid.xs, manifest.patch[1], manifest.shape[2]))
    along_y, along_x = (outer.constant(linear_weights(*axis).astype(np.float32)) for axis in axes)

    def at_pixels(values: str) -> str:
        return outer("MatMul", outer("MatMul", along_y, values), outer("Transpose", along_x, perm=[1, 0]))

    pixels = at_pixels(outer("Where", missing, zero, drop))
    touched = outer("Greater", at_pixels(outer("Cast", missing, to=TensorProto.FLOAT)), zero)
    outer("Where", touched, outer.constant(np.array(np.nan, np.float32)), pixels, name=DROP)


def linear_weights(corners: IntArray, patch: int, size: int) -> DoubleArray:
    """[size, corners]: what each pixel of an axis has of the score at each position, linear between the patches' centres."""
    centres = corners + (patch - 1) / 2
    return np.stack([np.interp(np.arange(size), centres, row) for row in np.eye(len(corners))], axis=1)
