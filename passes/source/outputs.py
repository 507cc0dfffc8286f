"""Which tensor is explained: the output, or the tensor of numbers that an output of labels, maps or indices is made of.

Requires a loaded source. Ensures a name of a tensor of its graph, and notes that say what was taken instead of what.
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
"""Operators behind which there is a label, an index or a container: what is explained lies in front of them."""
COMPARING = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
"""Operators that decide as well, where what they say is not counted again as a number."""
CLASSIFIERS = ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")
"""Operators of ai.onnx.ml whose first output is a label and whose second is the scores."""
RESHAPING = ("Identity", "Dropout", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose")
"""Operators that keep all numbers."""
PASSING = (
    *RESHAPING, "Slice", "Gather", "GatherElements", "ArrayFeatureExtractor", "SequenceAt", "OptionalGetElement",
    "Add", "Sub", "Mul",
)  # fmt: skip
"""Operators that only bring a decision into another form, where one of their inputs alone is made of the image."""
SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass(frozen=True, slots=True)
class Explained:
    """The tensor that is explained.

    Attributes:
        tensor: its name in the source's graph, an output or not.
        notes: what a user should know about the choice.
    """

    tensor: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Traced:
    """Where an output comes from.

    Attributes:
        tensor: the numbers in front of the decision that makes it, or itself; None if it is nothing of numbers.
        via: name and operator of that decision, empty where there is none.
        root: what all of a classifier's outputs have in common: the tensor without a final softmax or sigmoid.
        depth: operators between ``root`` and ``tensor``.
    """

    tensor: str | None
    via: str
    root: str
    depth: int


def select_output(source: Source, wanted: str | None) -> Explained:
    """What is explained: ``wanted``, an output or a tensor inside the graph; or what all outputs are made of.

    Raises:
        UsageError: outputs are made of different tensors and none was asked for, or one that does not exist.
        ModelError: there is no tensor of numbers.
    """
    graph, path = source.model.graph, source.path
    outputs = {value.name: _kind(value) for value in graph.output}
    ways = _Ways(graph)
    if wanted is not None:
        if wanted not in outputs and wanted not in ways.producers:
            near = get_close_matches(wanted, [*outputs, *ways.producers], 3)
            hint = f" or of a tensor inside the graph (near: {', '.join(near)})" if near else " or of a tensor inside the graph"
            raise UsageError(
                f"{path}: has no output {wanted!r}; its outputs are {', '.join(outputs)}; --output takes one of them{hint}"
            )
        traced = ways.traced(wanted, outputs.get(wanted, "tensor of numbers"), asked=True)
        inside = () if wanted in outputs else (f"explains {wanted}, a tensor inside the graph, not one of its outputs",)
        return _explained(source, {wanted: traced}, wanted, outputs, inside)
    found = {name: ways.traced(name, kind) for name, kind in outputs.items()}
    numbers = {name: one for name, one in found.items() if one.tensor is not None} or found
    if len({one.root for one in numbers.values()}) > 1:
        raise UsageError(
            f"{path}: has {len(outputs)} outputs ({', '.join(outputs)}), made of different numbers; say which to explain "
            "(--output NAME; a tensor inside the graph may be named, too)"
        )
    own = [name for name, one in numbers.items() if one.tensor == name] or list(numbers)
    return _explained(source, found, max(own, key=lambda name: numbers[name].depth), outputs, ())


def _explained(
    source: Source, found: Mapping[str, _Traced], name: str, outputs: Mapping[str, str], notes: Sequence[str]
) -> Explained:
    """With notes of what is explained in place of each output in ``found``, of which ``name`` is the one."""
    tensor = found[name].tensor
    if tensor is None:
        raise ModelError(
            f"{source.path}: output {name} is a {outputs.get(name, 'value')}, expected a tensor of numbers; "
            "choose another, or a tensor inside the graph (--output NAME)"
        )
    told = [f"{_told(other, one, outputs, tensor)}: {tensor} is explained" for other, one in found.items() if other != tensor]
    return Explained(tensor, (*notes, *told))


def _told(name: str, traced: _Traced, outputs: Mapping[str, str], explained: str) -> str:
    """What output ``name`` is, that is not ``explained`` itself."""
    if traced.tensor is None:
        return f"output {name} is a {outputs[name]} that is made of no tensor of numbers alone"
    if traced.via:
        return f"output {name} is made of {traced.tensor} by {traced.via}"
    return f"output {name} is made of the same numbers as {explained}"


def _kind(value: onnx.ValueInfoProto) -> str:
    """What an output is, in words."""
    kind = value.type.WhichOneof("value")
    if kind in (None, "tensor_type"):
        element = value.type.tensor_type.elem_type
        if element == TensorProto.STRING:
            return "tensor of strings"
        return "tensor of numbers" if element in (*FLOATS, TensorProto.UNDEFINED) else "tensor of whole numbers"
    return str(kind).removesuffix("_type")


class _Ways:
    """The ways back from the tensors of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output if name}
        weights = {one.name for one in (*graph.initializer,)} | {one.values.name for one in graph.sparse_initializer}
        self.variable = {value.name for value in graph.input} - weights
        for node in graph.node:
            if self.variable.intersection(_read(node)):
                self.variable.update(node.output)

    def traced(self, name: str, kind: str, *, asked: bool = False) -> _Traced:
        """``kind`` is what :func:`_kind` says of it. Ranked numbers (of a TopK) stay if they were ``asked`` for."""
        place, found, via = name, name, ""
        numeric = kind == "tensor of numbers"
        while (step := self._before(place, numeric, asked)) is not None:
            place, decides = step
            if decides:
                node = self._maker(found, place)
                found, via = place, via or f"{node.op_type}{f' {node.name}' if node.name else ''}"
        none = not via and kind not in ("tensor of numbers", "tensor of whole numbers")
        root, depth = self._root(found)
        return _Traced(None if none else found, via, root, depth)

    def _maker(self, later: str, place: str) -> onnx.NodeProto:
        """The node on the way back from ``later`` that reads ``place``, or whose scores ``place`` is."""
        name = later
        while True:
            node: onnx.NodeProto = self.producers[name]
            if place in node.input or place in node.output:
                return node
            name = next(one for one in node.input if one in self.variable)

    def _before(self, name: str, numeric: bool, asked: bool) -> tuple[str, bool] | None:
        """One step back from ``name``: what it is made of, and whether a decision lies between; None where the way ends."""
        node = self.producers.get(name)
        if node is None or name not in self.variable:
            return None
        read = [one for one in node.input if one in self.variable]
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
        """What ``name`` is a softmax, a sigmoid or another form of; and how many operators ago."""
        depth = 0
        while (node := self.producers.get(name)) is not None and node.op_type in (*SQUASHING, *RESHAPING):
            name, depth = node.input[0], depth + 1
        return name, depth


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, the nodes in its bodies included."""
    yield from (name for name in node.input if name)
    for body in (graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)):
        for inner in body.node:
            yield from _read(inner)
        yield from (value.name for value in body.output)


def cut(graph: onnx.GraphProto, tensor: str) -> None:
    """Makes ``tensor`` the only output of ``graph``, of any shape, and drops the nodes that it is not made of."""
    output = onnx.ValueInfoProto(name=tensor)
    for declared in (value for value in graph.output if value.name == tensor):
        if declared.type.tensor_type.elem_type:  # ONNX Runtime tells a type that is left away, but refuses to be told none
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
