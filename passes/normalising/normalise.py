"""Normalisation: brings any exporter's graph to a canonical form.

Requires a checked source. Ensures the invariants of :func:`spec.check_normalised`: one float32 input, opset 18 or later.
Constants and batch normalisations are folded, branches with constant conditions inlined, the batch is free, all other shapes are
static where inference knows them, pads are explicit, operators in canonical form (``canonical``), node names unique. Nodes are
topologically sorted. Weights stay on disk and are memory-mapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import BatchError, check_independent, subgraphs
from kcompiler.passes.graphs.names import fresh_name
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
from kcompiler.runtime.bundle.manifest import OWN_NAMES, PREFIXES
from kcompiler.runtime.errors import ModelError

ROWS = "/rows"
"""Suffix of the name of an output that is reshaped to rows because its rank is unknown."""
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
"""The passes in order. Each runs until it changes no shape."""


def normalise(source: Source, output: str, folder: Path, *, free_batch: bool = True) -> gs.Graph:
    """The normalised graph with ``output`` as its only output; edits ``source.model`` in place.

    Args:
        source: a checked model.
        output: name of the tensor to keep as the only output.
        folder: scratch space, which must outlive the graph: weights are mapped from a file in it.
        free_batch: whether the graph gets a free batch axis; otherwise it takes one image.

    Raises:
        BatchError: with a free batch, ONNX Runtime cannot load the model, shapes contradict each other, or values mix several
            images.
        ModelError: with one image, ONNX Runtime cannot load it or shapes contradict each other; or the output does not depend on
            the image, or is random.
    """
    fault = BatchError if free_batch else ModelError
    context = Context(source.path, folder, fault, element_type(source), external=source.external)
    unblock(source.model, source.path.parent)
    unfuse(source.model, source.path.parent, {**FUSED, **CHANNELS_LAST})
    set_batch(source, output, free_batch)
    model = fold_by_runtime(source.model, source.path.parent, context)
    model = without_retired(without_known_branches(model, context), context)
    context = replace(context, corners=opset_of(model) < CENTRED_FROM)
    model = integer_operators(convert(source, model), folder, INLINE_BYTES)
    graph = run_passes(NORMALISE, gs.import_onnx(context.inferred(model)), context)
    graph.name = graph.name or "model"  # ONNX requires a name, ONNX Runtime does not
    for scope in (graph, *subgraphs(graph)):
        context.map_weights(scope)
    _free_names(graph)
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
    """The graph after all ``passes``, each run until it changes no shape; shapes are inferred anew after every change."""
    for rewrite in passes:
        while rewrite(graph, context):
            graph = context.inferred_anew(graph)
    return graph


def _check_not_random(source: Source, graph: gs.Graph) -> None:
    """Rejects a Dropout in training mode: its outputs are random, and so would be every map."""
    for node in graph.nodes:
        training = node.inputs[2] if node.op == "Dropout" and len(node.inputs) > 2 else None
        if isinstance(training, gs.Constant) and bool(np.any(training.values)):
            raise ModelError(
                f"{source.path}: node {node.name} (Dropout) is random in training mode, so that outputs differ from run to run; "
                "export the model in inference mode, or bind the input that switches training on to false"
            )


def _know_rank(graph: gs.Graph, free_batch: bool) -> None:
    """Reshapes an output of unknown rank, which no valid model may have, to a row for each image."""
    (output,) = graph.outputs
    if output.shape is not None:
        return
    taken = set(graph.tensors())
    rows = gs.Variable(fresh_name(f"{output.name}{ROWS}", taken), output.dtype, [BATCH if free_batch else 1, "numbers"])
    shape = gs.Constant(fresh_name(f"{output.name}/rows_shape", taken), np.array([0 if free_batch else 1, -1], dtype=np.int64))
    graph.nodes.append(gs.Node("Reshape", rows.name, inputs=[output, shape], outputs=[rows]))
    graph.outputs = [rows]


def _free_names(graph: gs.Graph) -> None:
    """Renames tensors, also of bodies, that have a name reserved for inputs of compiled models."""
    tensors = {id(tensor): tensor for scope in (graph, *subgraphs(graph)) for tensor in _tensors(scope)}
    taken = {tensor.name for tensor in tensors.values()}
    for tensor in tensors.values():
        if tensor.name in OWN_NAMES or tensor.name.startswith(PREFIXES):
            tensor.name = fresh_name(f"source/{tensor.name}", taken)


def _tensors(graph: gs.Graph) -> Iterator[gs.Tensor]:
    yield from (*graph.tensors().values(), *graph.inputs, *graph.outputs)


def _name_nodes(graph: gs.Graph) -> None:
    """Gives every node a unique name, by which reports and options refer to it."""
    seen: set[str] = set()
    for node in graph.nodes:
        stem, count = node.name or node.op, 1
        node.name = stem
        while node.name in seen:
            node.name, count = f"{stem}_{count}", count + 1
        seen.add(node.name)
