"""Selects the tensor to explain: a numeric output, or the scores from which an output of labels, maps or indices is computed.

Requires a loaded source. Ensures the name of a tensor of its graph, and notes that name the outputs it replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import onnx
from onnx import TensorProto

from kcompiler.passes.source.load import Source
from kcompiler.runtime.errors import ModelError, UsageError

DECIDING = ("ZipMap", "ArgMax", "ArgMin", "LabelEncoder", "CategoryMapper", "SequenceConstruct", "SplitToSequence", "Optional")
"""Operators that output a label, an index or a container: the explained tensor is in front of them."""
COMPARING = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
"""Operators that decide as well, unless the output computed from them is a tensor of floats."""
CLASSIFIERS = ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")
"""Operators of ai.onnx.ml whose first output is a label and whose second is the scores."""
RESHAPING = ("Identity", "Dropout", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose")
"""Operators that keep all elements."""
PASSING = (
    *RESHAPING, "Slice", "Gather", "GatherElements", "ArrayFeatureExtractor", "SequenceAt", "OptionalGetElement",
    "Add", "Sub", "Mul",
)  # fmt: skip
"""Operators that only reformat a decision, where a single input of theirs depends on the image."""
SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass(frozen=True, slots=True)
class Explained:
    """The tensor that is explained.

    Attributes:
        tensor: its name in the source's graph; it need not be a graph output.
        notes: for the user, on outputs that it replaces.
    """

    tensor: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Traced:
    """The scores that an output is computed from.

    Attributes:
        tensor: the scores in front of the decision that computes the output, or the output itself; None if it is not numeric.
        via: name and operator of that decision, empty where there is none.
        root: the scores before a final softmax or sigmoid, which all outputs of a classifier share.
        depth: operators between ``root`` and ``tensor``.
    """

    tensor: str | None
    via: str
    root: str
    depth: int


def select_output(source: Source, wanted: str | None) -> Explained:
    """The tensor to explain: ``wanted``, an output or a tensor inside the graph; or the scores that all outputs share.

    Raises:
        UsageError: ``wanted`` does not exist, or it is None and outputs are computed from different scores.
        ModelError: there is no numeric tensor.
    """
    graph, path = source.model.graph, source.path
    outputs = {value.name: _kind(value) for value in graph.output}
    backward = _Traces(graph)
    if wanted is not None:
        if wanted not in outputs and wanted not in backward.producers:
            near = get_close_matches(wanted, [*outputs, *backward.producers], 3)
            hint = f" or of a tensor inside the graph (near: {', '.join(near)})" if near else " or of a tensor inside the graph"
            raise UsageError(
                f"{path}: has no output {wanted!r}; its outputs are {', '.join(outputs)}; --output takes one of them{hint}"
            )
        traced = backward.traced(wanted, outputs.get(wanted, "tensor of numbers"), asked=True)
        inside = () if wanted in outputs else (f"explains {wanted}, a tensor inside the graph, not one of its outputs",)
        return _explained(source, {wanted: traced}, wanted, outputs, inside)
    traces = {name: backward.traced(name, kind) for name, kind in outputs.items()}
    numeric = {name: trace for name, trace in traces.items() if trace.tensor is not None} or traces
    if len({trace.root for trace in numeric.values()}) > 1:
        raise UsageError(
            f"{path}: has {len(outputs)} outputs ({', '.join(outputs)}), made of different numbers; say which to explain "
            "(--output NAME; a tensor inside the graph may be named, too)"
        )
    own = [name for name, trace in numeric.items() if trace.tensor == name] or list(numeric)
    return _explained(source, traces, max(own, key=lambda name: numeric[name].depth), outputs, ())


def _explained(
    source: Source, traces: Mapping[str, _Traced], name: str, outputs: Mapping[str, str], notes: Sequence[str]
) -> Explained:
    """The scores of output ``name``, with a note on each output in ``traces`` that they replace."""
    tensor = traces[name].tensor
    if tensor is None:
        raise ModelError(
            f"{source.path}: output {name} is a {outputs.get(name, 'value')}, expected a tensor of numbers; "
            "choose another, or a tensor inside the graph (--output NAME)"
        )
    replaced = [
        f"{_origin(other, trace, outputs, tensor)}: {tensor} is explained" for other, trace in traces.items() if other != tensor
    ]
    return Explained(tensor, (*notes, *replaced))


def _origin(name: str, traced: _Traced, outputs: Mapping[str, str], explained: str) -> str:
    """For a note: how output ``name`` is computed, which is not ``explained`` itself."""
    if traced.tensor is None:
        return f"output {name} is a {outputs[name]} that is made of no tensor of numbers alone"
    if traced.via:
        return f"output {name} is made of {traced.tensor} by {traced.via}"
    return f"output {name} is made of the same numbers as {explained}"


def _kind(value: onnx.ValueInfoProto) -> str:
    """The type of an output in words."""
    kind = value.type.WhichOneof("value")
    if kind in (None, "tensor_type"):
        element = value.type.tensor_type.elem_type
        if element == TensorProto.STRING:
            return "tensor of strings"
        return "tensor of numbers" if element in (*FLOATS, TensorProto.UNDEFINED) else "tensor of whole numbers"
    return str(kind).removesuffix("_type")


class _Traces:
    """Backward traces from the tensors of a graph, along values that depend on its inputs."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output if name}
        weights = {tensor.name for tensor in (*graph.initializer,)} | {sparse.values.name for sparse in graph.sparse_initializer}
        self.variable = {value.name for value in graph.input} - weights
        for node in graph.node:
            if self.variable.intersection(_read(node)):
                self.variable.update(node.output)

    def traced(self, name: str, kind: str, *, asked: bool = False) -> _Traced:
        """The trace from a tensor whose type is ``kind`` (:func:`_kind`). Values of a TopK count as scores if ``asked`` for."""
        current, scores, via = name, name, ""
        numeric = kind == "tensor of numbers"
        while (step := self._before(current, numeric, asked)) is not None:
            current, decides = step
            if decides:
                node = self._producer(scores, current)
                scores, via = current, via or f"{node.op_type}{f' {node.name}' if node.name else ''}"
        none = not via and kind not in ("tensor of numbers", "tensor of whole numbers")
        root, depth = self._root(scores)
        return _Traced(None if none else scores, via, root, depth)

    def _producer(self, later: str, tensor: str) -> onnx.NodeProto:
        """The node on the trace back from ``later`` that reads ``place``, or outputs it as its scores."""
        name = later
        while True:
            node: onnx.NodeProto = self.producers[name]
            if tensor in node.input or tensor in node.output:
                return node
            name = next(read for read in node.input if read in self.variable)

    def _before(self, name: str, numeric: bool, asked: bool) -> tuple[str, bool] | None:
        """A step back from ``name``: the value it is computed from, and whether by a decision; None at the end of the trace."""
        node = self.producers.get(name)
        if node is None or name not in self.variable:
            return None
        read = [tensor for tensor in node.input if tensor in self.variable]
        if node.op_type in CLASSIFIERS and name == node.output[0] and len(node.output) > 1:
            return node.output[1], True
        if node.op_type == "NonMaxSuppression":
            return node.input[1], True
        if len(set(read)) != 1:
            return None
        ranked = node.op_type == "TopK" and (name == node.output[1] or not asked)
        text = node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.STRING for a in node.attribute)
        compares = node.op_type in COMPARING and not numeric
        if ranked or text or compares or node.op_type in DECIDING:
            return read[0], True
        return (read[0], False) if node.op_type in PASSING else None

    def _root(self, name: str) -> tuple[str, int]:
        """The value before a final softmax, sigmoid and reshapes of it, and the number of operators between."""
        depth = 0
        while (node := self.producers.get(name)) is not None and node.op_type in (*SQUASHING, *RESHAPING):
            name, depth = node.input[0], depth + 1
        return name, depth


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that a node reads, including those that its bodies read."""
    yield from (name for name in node.input if name)
    for body in (graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)):
        for inner in body.node:
            yield from _read(inner)
        yield from (value.name for value in body.output)


def cut(graph: onnx.GraphProto, tensor: str) -> None:
    """Makes ``tensor`` the only output of ``graph``, without a shape, and drops the nodes that it does not depend on."""
    output = onnx.ValueInfoProto(name=tensor)
    for declared in (value for value in graph.output if value.name == tensor):
        if declared.type.tensor_type.elem_type:  # ONNX Runtime infers an absent type, but rejects UNDEFINED
            output.type.tensor_type.elem_type = declared.type.tensor_type.elem_type
    del graph.output[:]
    graph.output.append(output)
    needed, kept = {tensor}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_read(node))
    if len(kept) < len(graph.node):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
        del graph.node[:]
        graph.node.extend(copies)
