"""Hostile models: valid tiny networks with a few fields of their protos, or bytes of their files, changed at random."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import helper

sys.path.insert(0, str(Path(__file__).parents[1]))  # networks.py is no part of a package

import networks

import kcompiler
import kcompiler.pipeline  # before children are forked
from tests.fuzz.cases import Case
from tests.fuzz.gentle import GENTLE

MODEL = "model.onnx"
SIZE, PATCH = 10, 3
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    16,
    255,
    -2,
    1000,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    -(1 << 31),
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 3e38, 0.5)
TEXTS = ("", "positions", "fill", "table/image", "image", "Relu", "Div", "Loop", "n\n", "\x00", "é" * 300, "NOTSET")
OPERATORS = (
    "Relu", "Conv", "Add", "Mul", "Div", "Mod", "Pow", "MaxPool", "AveragePool", "Softmax", "Reshape", "Flatten",
    "Transpose", "Resize", "Pad", "Slice", "Gather", "Concat", "Split", "Identity", "Cast", "Shape", "Size",
    "ConstantOfShape", "Expand", "Tile", "Range", "If", "Loop", "Scan", "Gemm", "MatMul", "Einsum", "TopK", "NonZero",
    "ArgMax", "ReduceMean", "ReduceSum", "LSTM", "Dropout", "QuantizeLinear", "DequantizeLinear", "BatchNormalization",
    "InstanceNormalization", "LayerNormalization", "Where", "Equal", "Unsqueeze", "Squeeze", "DepthToSpace", "SpaceToDepth",
    "ConvTranspose", "GridSample", "RoiAlign", "NonMaxSuppression", "GlobalAveragePool", "GlobalMaxPool", "LRN", "Clip",
    "PRelu", "Sum", "Bernoulli", "OneHot", "CumSum", "ScatterND", "EyeLike",
)  # fmt: skip
ATTRIBUTES = (
    "axis", "axes", "pads", "strides", "dilations", "group", "kernel_shape", "auto_pad", "mode", "to", "perm", "value",
    "keepdims", "blocksize", "ceil_mode", "epsilon", "alpha", "body", "then_branch", "start", "end", "allowzero",
    "num_outputs",
)  # fmt: skip
INTEGERS = (
    FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_UINT32,
)  # fmt: skip
Mutation = Callable[[onnx.ModelProto, np.random.Generator], None]


def attempt(folder: Path) -> None:
    """Compiles the model, which compares it with the source."""
    kcompiler.compile(folder / MODEL, patch=PATCH, threads=1)


def cases(seed: int) -> Iterator[Case]:
    """Endless. Case n of a seed does not depend on how many are asked for."""
    names = list(networks.NETWORKS)
    number = 0
    while True:
        rng = np.random.default_rng([seed, number])
        name = names[int(rng.integers(len(names)))]
        data = valid(name, ("n", 1, 2)[int(rng.integers(3))], (18, 18, 13, 21)[int(rng.integers(4))])
        if rng.random() < 0.1:
            how, mutated = "bytes", other_bytes(data, rng)
        else:
            proto = onnx.ModelProto.FromString(data)
            mutations = GENTLE if rng.random() < 0.6 else MUTATIONS
            chosen = [mutations[int(rng.integers(len(mutations)))] for _ in range(int(rng.geometric(0.6)))]
            for mutation in chosen:
                mutation(proto, rng)
            how, mutated = "+".join(mutation.__name__ for mutation in chosen), proto.SerializeToString()
        yield f"{seed}/{number} {name} {how}", {MODEL: mutated}
        number += 1


@cache
def valid(name: str, batch: int | str, opset: int) -> bytes:
    """A tiny network, of opset 18 where it is of no other."""
    try:
        builder = networks.Builder()
        made = builder.model(networks.NETWORKS[name](builder), SIZE, SIZE, batch=batch, opset=opset)
    except Exception:  # whatever onnx's checker says
        return valid(name, 1, 18) if (batch, opset) != (1, 18) else valid("chain", 1, 18)
    return made.SerializeToString()


def other_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, taken out, put in, repeated or cut off."""
    mutable = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place, length = int(rng.integers(max(len(mutable), 1))), int(rng.integers(1, 20))
        how = rng.integers(5)
        if how == 0:
            mutable[place : place + 1] = rng.bytes(1)
        elif how == 1:
            del mutable[place : place + length]
        elif how == 2:
            mutable[place:place] = rng.bytes(length)
        elif how == 3:
            mutable[place:place] = mutable[place : place + length]
        elif rng.random() < 0.2:
            del mutable[place:]
    return bytes(mutable)


def messages(message: Message) -> Iterator[Message]:
    """A message and all messages in it, the content of large tensors aside."""
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if _repeated(field) else [value]:
                yield from messages(inner)


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED)


def field(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Any field of any message."""
    found = list(messages(proto))
    message = found[int(rng.integers(len(found)))]
    fields = [field for field in message.DESCRIPTOR.fields if field.type != FieldDescriptor.TYPE_MESSAGE]
    fields = [field for field, _ in message.ListFields() if field in fields and rng.random() < 0.9] or fields
    if not fields:
        return
    chosen = fields[int(rng.integers(len(fields)))]
    value = _value(chosen, rng)
    if not _repeated(chosen):
        setattr(message, chosen.name, value)
        return
    values = getattr(message, chosen.name)
    how = rng.integers(3)
    if len(values) and how == 0:
        values[int(rng.integers(len(values)))] = value
    elif len(values) and how == 1:
        del values[int(rng.integers(len(values)))]
    else:
        values.append(value)


def _value(field: Any, rng: np.random.Generator) -> object:
    if field.type in INTEGERS:
        number = NUMBERS[int(rng.integers(len(NUMBERS)))]
        if field.type == FieldDescriptor.TYPE_ENUM:
            return int(rng.choice([value.number for value in field.enum_type.values]))
        if field.type == FieldDescriptor.TYPE_INT32:
            return int(np.array(number).astype(np.int32))
        return abs(number) if field.type in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_UINT32) else number
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return FLOATS[int(rng.integers(len(FLOATS)))]
    text = TEXTS[int(rng.integers(len(TEXTS)))]
    return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text


def removed(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A node, input, output, weight or opset less."""
    graph = proto.graph
    repeated = [
        side for side in (graph.node, graph.node, graph.input, graph.output, graph.initializer, proto.opset_import) if side
    ]
    side = repeated[int(rng.integers(len(repeated)))] if repeated else ()
    if side:
        del side[int(rng.integers(len(side)))]


def repeated(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Something twice."""
    graph = proto.graph
    sides = [side for side in (graph.node, graph.input, graph.output, graph.initializer, proto.opset_import) if side]
    side = sides[int(rng.integers(len(sides)))] if sides else ()
    if side:
        side.add().CopyFrom(side[int(rng.integers(len(side)))])


def _node(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.NodeProto:
    return proto.graph.node[int(rng.integers(len(proto.graph.node)))] if proto.graph.node else onnx.NodeProto()


def operator(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Another operator at a node."""
    _node(proto, rng).op_type = OPERATORS[int(rng.integers(len(OPERATORS)))]


def inserted(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """An operator more, between a value and its reader."""
    node = _node(proto, rng)
    if not node.input:
        return
    place = int(rng.integers(len(node.input)))
    reads = [node.input[place], *rng.choice(_values(proto), int(rng.integers(3))).tolist()]
    name = f"inserted_{int(rng.integers(1 << 30))}"
    new = helper.make_node(OPERATORS[int(rng.integers(len(OPERATORS)))], reads, [name])
    node.input[place] = name
    index = next(number for number, other in enumerate(proto.graph.node) if other is node or other == node)
    proto.graph.node.insert(index, new)


def _values(proto: onnx.ModelProto) -> Sequence[str]:
    graph = proto.graph
    return [
        *(value.name for value in (*graph.input, *graph.initializer)),
        *(name for node in graph.node for name in node.output),
        "",
    ]


def wired(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Another value at an input of a node."""
    node = _node(proto, rng)
    value = str(rng.choice(_values(proto)))
    if node.input and rng.random() < 0.8:
        node.input[int(rng.integers(len(node.input)))] = value
    else:
        node.input.append(value)


def attribute(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """An attribute changed or added: numbers, a reference, a type that it has not."""
    node = _node(proto, rng)
    name = ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))]
    if node.attribute and rng.random() < 0.7:
        name = node.attribute[int(rng.integers(len(node.attribute)))].name
        kept = [other for other in node.attribute if other.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
    numbers = [int(number) for number in rng.choice(np.array(NUMBERS, dtype=object), int(rng.integers(1, 6)))]
    made = onnx.AttributeProto(name=name)
    how = rng.integers(6)
    if how == 0:
        made.type, made.i = onnx.AttributeProto.INT, numbers[0]
    elif how == 1:
        made.type = onnx.AttributeProto.INTS
        made.ints.extend(numbers)
    elif how == 2:
        made.type, made.f = onnx.AttributeProto.FLOAT, FLOATS[int(rng.integers(len(FLOATS)))]
    elif how == 3:
        made.type, made.s = onnx.AttributeProto.STRING, TEXTS[int(rng.integers(len(TEXTS)))].encode()
    elif how == 4:
        made.type, made.ref_attr_name = int(rng.integers(1, 15)), "outer"
    else:
        made.type = int(rng.integers(15))
    node.attribute.append(made)


def constant(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Other numbers, type or sizes of a weight."""
    if not proto.graph.initializer:
        return
    tensor = proto.graph.initializer[int(rng.integers(len(proto.graph.initializer)))]
    how = rng.integers(3)
    if how == 0 and tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    elif how == 1:
        tensor.data_type = int(rng.integers(24))
    elif tensor.data_type in (1, 6, 7):
        dtype = np.dtype({1: np.float32, 6: np.int32, 7: np.int64}[tensor.data_type])
        try:
            values = np.array(onnx.numpy_helper.to_array(tensor))
        except ValueError:  # an earlier mutation left it inconsistent
            values = np.zeros(1, dtype)
        if values.size:
            odd = np.array(
                FLOATS if dtype.kind == "f" else [n for n in NUMBERS if np.iinfo(dtype).min <= n <= np.iinfo(dtype).max], dtype
            )
            values.flat[int(rng.integers(values.size))] = rng.choice(odd)
            tensor.raw_data = values.tobytes()


def named(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A value renamed everywhere, to a name of ours or one that is there."""
    names = [name for name in _values(proto) if name]
    if not names:
        return
    old, new = str(rng.choice(names)), str(rng.choice([*names, *(text for text in TEXTS if text)]))
    for node in proto.graph.node:
        for side in (node.input, node.output):
            side[:] = [new if name == old else name for name in side]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.name = new if value.name == old else value.name


def sizes(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Another size of an input or output, or a name in its place."""
    values = [*proto.graph.input, *proto.graph.output]
    if not values:
        return
    dims = values[int(rng.integers(len(values)))].type.tensor_type.shape.dim
    if dims:
        dim = dims[int(rng.integers(len(dims)))]
        if rng.random() < 0.3:
            dim.dim_param = TEXTS[int(rng.integers(len(TEXTS)))]
        else:
            dim.dim_value = NUMBERS[int(rng.integers(len(NUMBERS)))]


MUTATIONS: tuple[Mutation, ...] = (
    field, field, removed, repeated, operator, inserted, inserted, wired, attribute, attribute, constant, named, sizes,
)  # fmt: skip
