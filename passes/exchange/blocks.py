"""Channel padding: a convolution that only a global mean reads gets zero channels up to a whole NCHWc block.

In NCHWc, ONNX Runtime runs convolutions to any number of channels, but pools of whole blocks only: for 1000 channels it would
reorder the map first, which takes as long as the pool. A Slice behind the mean removes the zero channels.

Requires a normalised graph. Ensures: the same outputs, under the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import has_one_reader
from kcompiler.passes.regions.channels import summed_axes

FEW = 16
"""Channels per zero channel, at least: zero channels are computed, too."""


def fill_blocks(graph: gs.Graph, kept: Collection[str]) -> bool:
    """Pads convolutions before global means; chains with a node named in ``kept`` stay. Returns whether any was padded."""
    emit, changed = Emitter(graph), False
    for mean in list(graph.nodes):
        if chain := _chain(graph, mean, kept):
            _fill(emit, chain)
            changed = True
    return changed


def _chain(graph: gs.Graph, mean: gs.Node, kept: Collection[str]) -> list[gs.Node]:
    """The chain of a Conv to pad, pointwise activations and ``mean``, each the only reader of its predecessor; else empty."""
    if summed_axes(mean) != [2, 3] or mean.inputs[0].shape is None or len(mean.inputs[0].shape) != 4:
        return []
    chain = [mean, *_before(graph, mean.inputs[0])]
    conv = chain[-1]
    if conv.op != "Conv" or any(node.name in kept for node in chain) or conv.attrs.get("group", 1) != 1:
        return []
    if not all(isinstance(value, gs.Constant) and value.dtype == np.float32 for value in conv.inputs[1:]):
        return []
    channels = conv.inputs[1].shape[0]
    return chain[::-1] if 0 < -channels % assumed.BLOCK <= channels // FEW else []


def _before(graph: gs.Graph, value: gs.Tensor) -> Iterator[gs.Node]:
    """The producers of ``value`` that have a single reader, last first, up to and including the first that is no activation."""
    while len(value.inputs) == 1 and has_one_reader(graph, value):
        (node,) = value.inputs
        yield node
        if node.op not in assumed.BLOCKED_ACTIVATIONS:
            return
        value = node.inputs[0]


def _fill(emit: Emitter, chain: list[gs.Node]) -> None:
    """Pads the weights and bias of the chain's convolution with zeros, and slices the mean's output."""
    conv, mean = chain[0], chain[-1]
    channels = conv.inputs[1].shape[0]
    zeros = -channels % assumed.BLOCK
    parameters = (
        emit.constant(np.concatenate([value.values, np.zeros((zeros, *value.shape[1:]), value.dtype)]), f"{value.name}/blocks")
        for value in conv.inputs[1:]
    )
    conv.inputs = [conv.inputs[0], *parameters]
    output = mean.outputs[0]
    padded = gs.Variable(emit.fresh(f"{output.name}/blocks"), output.dtype, output.shape)
    mean.outputs = [padded]
    for value in (*(node.outputs[0] for node in chain[:-1]), padded):
        if value.shape is not None:
            value.shape = [value.shape[0], channels + zeros, *value.shape[2:]]
    crop = gs.Node("Slice", emit.fresh(f"{mean.name}/channels"), outputs=[output])
    crop.inputs = [padded, emit.int64([0]), emit.int64([channels]), emit.int64([1])]
    emit.graph.nodes.append(crop)
