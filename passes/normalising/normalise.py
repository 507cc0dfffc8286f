"""Normalising: any exporter's graph becomes one plain form.

Requires a checked source. Ensures what :func:`spec.check_normalised` asks for: one float32 input, one opset (at least 18),
constants and batch normalisations folded, branches that are known taken, the batch free, all other shapes static where inference
can tell, explicit pads, layout noise away (``canonical``), unique node names, topologically sorted; weights stay on disk and are
mapped from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import BatchError, check_independent, subgraphs
from kcompiler.passes.normalising.batch_axis import BATCH, set_batch
from kcompiler.passes.normalising.branches import without_known_branches
from kcompiler.passes.normalising.canonical import canonical, free_resizes
from kcompiler.passes.normalising.channels_first import CHANNELS_LAST
from kcompiler.passes.normalising.context import Context, Pass
from kcompiler.passes.normalising.convert import CENTRED_FROM, convert, corner_resizes, opset_of
from kcompiler.passes.normalising.expand import drop_expands
from kcompiler.passes.normalising.fold import fold
from kcompiler.passes.normalising.fold_by_runtime import INLINE_BYTES, fold_by_runtime
from kcompiler.passes.normalising.integers import check_sums, integer_operators, merge_equal
from kcompiler.passes.normalising.pads import make_explicit
from kcompiler.passes.normalising.pixel_types import keep_float32
from kcompiler.passes.normalising.retired import without_retired
from kcompiler.passes.normalising.unblock import unblock
from kcompiler.passes.normalising.unfuse import FUSED, unfuse
from kcompiler.passes.source.inputs import element_type
from kcompiler.passes.source.load import Source
from kcompiler.runtime.bundle.manifest import OWN_NAMES, TABLE
from kcompiler.runtime.errors import ModelError

ROWS = "/rows"
"""End of the name of an output that is brought into rows because its rank is not known."""
NORMALISE: Sequence[Pass] = (
    keep_float32,
    fold,
    drop_expands,
    corner_resizes,
    make_explicit,
    free_resizes,
    merge_equal,
    canonical,
)
"""In order, each until it finds no more."""


def normalise(source: Source, output: str, folder: Path, *, free_batch: bool = True) -> gs.Graph:
    """The source in plain form, with the one output; edits ``source.model`` in place.

    Args:
        source: a checked model.
        output: name of the tensor to keep as the only output.
        folder: scratch space, which must outlive the graph: weights are mapped from a file in it.
        free_batch: whether the graph is to take any number of images; otherwise it takes one.

    Raises:
        BatchError: with a free batch ONNX Runtime cannot load the model, shapes contradict each other, or values are made
            of several images.
        ModelError: the same for one image, or the output does not depend on the image.
    """
    context = Context(source.path, folder, BatchError if free_batch else ModelError, element_type(source))
    unblock(source.model, source.path.parent)
    unfuse(source.model, source.path.parent, {**FUSED, **CHANNELS_LAST})
    set_batch(source, output, free_batch)
    model = fold_by_runtime(source.model, source.path.parent, context)
    model = without_retired(without_known_branches(model, context), context)
    context = replace(context, corners=opset_of(model) < CENTRED_FROM)
    model = integer_operators(convert(source, model), folder, INLINE_BYTES)
    graph = run_passes(NORMALISE, gs.import_onnx(context.inferred(model)), context)
    for one in (graph, *subgraphs(graph)):
        context.map_weights(one)
        _free_names(one)
    _name_nodes(graph)
    graph.cleanup()
    _check_not_random(source, graph)
    if graph.outputs[0] is graph.inputs[0]:
        raise ModelError(f"{source.path}: output {output} is the image itself; choose another (--output NAME)")
    if isinstance(graph.outputs[0], gs.Constant):
        raise ModelError(f"{source.path}: output {output} does not depend on the image; choose another (--output NAME)")
    if free_batch:
        check_independent(graph)
        check_sums(graph)
    _know_rank(graph, free_batch)
    return graph


def run_passes(passes: Sequence[Pass], graph: gs.Graph, context: Context) -> gs.Graph:
    """The graph after all ``passes``, each run until it changes no shape; they are inferred anew after every change."""
    for one in passes:
        while one(graph, context):
            graph = context.inferred_anew(graph)
    return graph


def _check_not_random(source: Source, graph: gs.Graph) -> None:
    """A Dropout that trains gives other numbers each time: whatever is found would be noise."""
    for node in graph.nodes:
        training = node.inputs[2] if node.op == "Dropout" and len(node.inputs) > 2 else None
        if isinstance(training, gs.Constant) and bool(np.any(training.values)):
            raise ModelError(
                f"{source.path}: node {node.name} (Dropout) is random in training mode, so that outputs differ from run to run; "
                "export the model in inference mode, or bind the input that switches training on to false"
            )


def _know_rank(graph: gs.Graph, free_batch: bool) -> None:
    """An output of unknown rank, which no valid model may have, becomes a row for each image."""
    (output,) = graph.outputs
    if output.shape is not None:
        return
    rows = gs.Variable(f"{output.name}{ROWS}", output.dtype, [BATCH if free_batch else 1, "numbers"])
    shape = gs.Constant(f"{output.name}/rows_shape", np.array([0 if free_batch else 1, -1], dtype=np.int64))
    graph.nodes.append(gs.Node("Reshape", rows.name, inputs=[output, shape], outputs=[rows]))
    graph.outputs = [rows]


def _free_names(graph: gs.Graph) -> None:
    """The names of the bundle's own inputs are left to them."""
    for tensor in (*graph.tensors().values(), *graph.inputs, *graph.outputs):
        if tensor.name in OWN_NAMES or tensor.name.startswith(TABLE):
            tensor.name = f"source/{tensor.name}"


def _name_nodes(graph: gs.Graph) -> None:
    """Every node gets a name of its own: the report speaks of nodes by name."""
    seen: set[str] = set()
    for node in graph.nodes:
        stem, count = node.name or node.op, 1
        node.name = stem
        while node.name in seen:
            node.name, count = f"{stem}_{count}", count + 1
        seen.add(node.name)
