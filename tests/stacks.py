"""What models ask of ONNX Runtime's execution providers, and the kernels that these have, by ``tests/kernels/``.

A kernel is found by ONNX Runtime's own rule: its range of versions holds the version in which the operator was last changed, an
open range only where it starts there, and each type constraint holds the type of the first input or output that it is about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from onnx import AttributeProto, TensorProto, defs
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_state

KERNELS = Path(__file__).parent / "kernels"
STACKS = ("cpu", "wasm", "webgpu", "cuda")
OF_TENSOR_TYPE = {
    TensorProto.FLOAT: "float", TensorProto.DOUBLE: "double", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT8: "int8", TensorProto.INT16: "int16", TensorProto.INT32: "int32", TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8", TensorProto.UINT16: "uint16", TensorProto.UINT32: "uint32", TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool", TensorProto.STRING: "string",
}  # fmt: skip
"""Names of element types, as in the files of kernels."""


@dataclass(frozen=True, slots=True)
class Formal:
    """A formal input or output of an operator: its name, its type constraint (or type), whether it stands for many."""

    name: str
    type: str
    variadic: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """An operator's version in which it was last changed, its formal inputs and outputs."""

    since: int
    inputs: Sequence[Formal]
    outputs: Sequence[Formal]
    allowed: Mapping[str, frozenset[str]]
    """Element types of each type constraint."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a node asks for.

    Attributes:
        domain, operator, since: the operator, and the version in which it was last changed.
        types: element types by names of formal inputs and outputs and of type constraints; of the first where there are many.
        kind: element type of the first input that is no truth value, if there is one, else "bool".
        inputs, outputs: positions of those that are not left out.
    """

    domain: str
    operator: str
    since: int
    types: tuple[tuple[str, str], ...]
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __str__(self) -> str:
        types = ", ".join(f"{name}: {kind}" for name, kind in self.types)
        return f"{self.domain or 'ai.onnx'} {self.operator}-{self.since} ({types}), {len(self.inputs)} to {len(self.outputs)}"


@dataclass(frozen=True, slots=True)
class Kernel:
    """Versions of the operator, from the first to the last (None: open), and element types by type constraint."""

    first: int
    last: int | None
    types: Mapping[str, frozenset[str]]

    def takes(self, asked: Asked) -> bool:
        version = self.first == asked.since or (self.last is not None and self.first <= asked.since <= self.last)
        given = dict(asked.types)
        return version and all(name not in given or given[name] in kinds for name, kinds in self.types.items())


class Stack:
    """An execution provider of one version: its kernels, where they were read, and its limits."""

    def __init__(self, name: str) -> None:
        read = json.loads((KERNELS / f"{name}.json").read_text(encoding="utf-8"))
        self.name, self.source, self.limits = name, read["source"], read["limits"]
        sets = [frozenset(kinds) for kinds in read["types"]]
        self.kernels = {
            key: [Kernel(first, last, {name: sets[at] for name, at in types.items()}) for first, last, types in kernels]
            for key, kernels in read["kernels"].items()
        }

    def buffers(self, asked: Asked) -> int:
        """Storage buffers that the kernel binds at once, at most."""
        if asked.operator in self.limits["in_passes"]:
            return 0
        elsewhere = self.limits["on_processor"].get(asked.operator, ())
        return sum(at not in elsewhere for at in asked.inputs) + len(asked.outputs)

    def has(self, asked: Asked) -> bool:
        return any(kernel.takes(asked) for kernel in self.kernels.get(f"{asked.domain}:{asked.operator}".lstrip(":"), ()))


@cache
def stack(name: str) -> Stack:
    return Stack(name)


@cache
def _contributed() -> Mapping[str, object]:
    """ONNX Runtime's own operators."""
    return {one.name: one for one in onnxruntime_state.get_all_operator_schema() if one.domain == "com.microsoft"}


@cache
def signature(domain: str, operator: str, opset: int) -> Signature:
    found = defs.get_schema(operator, opset, "") if domain == "" else _contributed()[operator]

    def formals(given: Sequence[object]) -> list[Formal]:
        kinds = [getattr(one, "type_str", None) or one.typeStr for one in given]
        return [Formal(one.name, kind, "Variadic" in str(one.option)) for one, kind in zip(given, kinds, strict=True)]

    allowed = {
        one.type_param_str: frozenset(kind.removeprefix("tensor(").removesuffix(")") for kind in one.allowed_type_strs)
        for one in found.type_constraints
    }
    return Signature(found.since_version, formals(found.inputs), formals(found.outputs), allowed)


def asked_by(model: onnx.ModelProto) -> Iterator[Asked]:
    """What each node of the model asks for, those in bodies of control flow, too.

    Raises:
        ValueError: an element type cannot be told.
    """
    opsets = {one.domain: one.version for one in model.opset_import}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    yield from _of_graph(inferred.graph, opsets, {})


def _of_graph(graph: onnx.GraphProto, opsets: Mapping[str, int], outer: Mapping[str, str]) -> Iterator[Asked]:
    kinds = {"": "", **outer}
    kinds |= {one.name: OF_TENSOR_TYPE[one.data_type] for one in graph.initializer}
    known = {
        value.name: OF_TENSOR_TYPE[value.type.tensor_type.elem_type]
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type
    }
    kinds |= {value.name: known[value.name] for value in graph.input}
    for node in graph.node:
        operator = signature(node.domain, node.op_type, opsets[node.domain])
        bodies = [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
        for body in bodies:
            yield from _of_graph(body, opsets, kinds)
        bound = _bound(operator.inputs, [kinds[name] for name in node.input])
        for number, name in enumerate(node.output):
            kinds[name] = known.get(name) or _output_type(node, operator, number, bound)
        outputs = _bound(operator.outputs, [kinds[name] for name in node.output])
        types = tuple(sorted({**outputs, **bound}.items()))
        given = [tuple(at for at, name in enumerate(names) if name) for names in (node.input, node.output)]
        kind = next((kinds[name] for name in node.input if kinds[name] not in ("", "bool")), "bool")
        yield Asked(node.domain, node.op_type, operator.since, types, kind, *given)


def _bound(formals: Sequence[Formal], kinds: Sequence[str]) -> dict[str, str]:
    """Element types by names of formals and of type constraints, each of the first that is there."""
    bound: dict[str, str] = {}
    for number, kind in enumerate(kinds):
        formal = formals[min(number, len(formals) - 1)]
        if kind:
            bound.setdefault(formal.name, kind)
            bound.setdefault(formal.type, kind)
    return bound


def _output_type(node: onnx.NodeProto, operator: Signature, number: int, bound: Mapping[str, str]) -> str:
    """Of an output that ONNX's inference has not told: ONNX Runtime's own operators, and nodes in bodies."""
    constraint = operator.outputs[min(number, len(operator.outputs) - 1)].type
    attributes = {one.name: one for one in node.attribute}
    if constraint in bound and node.op_type not in ("Loop", "If"):
        return bound[constraint]
    if node.op_type == "Cast":
        return OF_TENSOR_TYPE[attributes["to"].i]
    if node.op_type == "ConstantOfShape":
        return OF_TENSOR_TYPE[attributes["value"].t.data_type] if "value" in attributes else "float"
    kinds = operator.allowed.get(constraint, {constraint.removeprefix("tensor(").removesuffix(")")})
    if len(kinds) != 1:
        raise ValueError(f"{node.op_type} {node.name!r}: the type of output {number} may be any of {sorted(kinds)}")
    return next(iter(kinds))
