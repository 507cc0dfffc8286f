"""Mutations after which a model is mostly still valid: operators that are rarely met, odd numbers, sizes left open, other names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 3e38, 1e-30, 1e30)
OURS = (
    "positions",
    "fill",
    "class/rows",
    "class/columns",
    "table/image",
    "index/x",
    "shape/x",
    "sizes",
    "constant",
    "batch",
    "source/fill",
)
FLOAT, INT32, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL
Pieces = tuple[list[onnx.NodeProto], list[TensorProto]]


class Parts:
    """Nodes and weights of an insertion, under names of its own."""

    def __init__(self, stem: str, rng: np.random.Generator) -> None:
        self.stem, self.rng = stem, rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def __call__(self, op: str, *reads: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"{self.stem}/{len(self.nodes)}/{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, list(reads), names, f"{self.stem}/n{len(self.nodes)}", **attributes))
        return names[0]

    def constant(self, values: object, dtype: type = np.float32) -> str:
        name = f"{self.stem}/c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def integer(self, most: int = 4) -> int:
        return int(self.rng.integers(-most, most + 1))

    def number(self) -> str:
        return self.constant(FLOATS[int(self.rng.integers(len(FLOATS)))])


def integer_arithmetic(b: Parts, x: str) -> str:
    kind, dtype = ((INT32, np.int32), (INT64, np.int64), (TensorProto.INT8, np.int8))[int(b.rng.integers(3))]
    numbers = (-1, 0, 1, 2, 3, np.iinfo(dtype).min, np.iinfo(dtype).max)
    y = b("Cast", x, to=kind)
    for _ in range(int(b.rng.integers(1, 3))):
        op = ("Add", "Mul", "Div", "Mod", "Sub", "Max")[int(b.rng.integers(6))]
        y = b(op, y, b.constant(numbers[int(b.rng.integers(len(numbers)))], dtype))
    return b("Cast", y, to=FLOAT)


def unary(b: Parts, x: str) -> str:
    op = ("Abs", "Neg", "Exp", "Sqrt", "Log", "Reciprocal", "Sign", "Floor", "Erf", "Softplus", "Tan", "Acosh", "Identity", "Not",
          "HardSwish", "Celu", "Mish", "IsNaN", "Selu")[int(b.rng.integers(19))]  # fmt: skip
    if op == "Not":
        return b("Cast", b("Not", b("Cast", x, to=BOOL)), to=FLOAT)
    return b("Cast", b(op, x), to=FLOAT) if op == "IsNaN" else b(op, x)


def binary(b: Parts, x: str) -> str:
    op = ("Add", "Mul", "Div", "Pow", "Max", "Min", "Sub", "PRelu")[int(b.rng.integers(8))]
    return b(op, x, b.number()) if b.rng.random() < 0.7 else b(op, x, x)


def by_shape(b: Parts, x: str) -> str:
    """Flattened and back, by sizes that are computed."""
    sizes = b("Shape", x)
    if b.rng.random() < 0.3:
        sizes = b("Div", b("Mul", sizes, b.constant([b.integer()], np.int64)), b.constant([b.integer()], np.int64))
    return b("Reshape", b("Reshape", x, b.constant([-1], np.int64)), sizes)


def padded(b: Parts, x: str) -> str:
    pads = [b.integer(2) for _ in range(4)]
    mode = ("constant", "reflect", "edge", "wrap")[int(b.rng.integers(4))]
    return b("Pad", x, b.constant([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64), mode=mode)


def sliced(b: Parts, x: str) -> str:
    starts, stops, steps = ([b.integer(most), b.integer(most)] for most in (5, 20, 3))
    return b("Slice", x, *(b.constant(values, np.int64) for values in (starts, stops, [2, 3], [step or 1 for step in steps])))


def resized(b: Parts, x: str) -> str:
    scales = [1, 1, *(float(b.rng.choice([0.3, 0.5, 1, 1.7, 2, 3])) for _ in range(2))]
    mode = ("nearest", "linear", "cubic")[int(b.rng.integers(3))]
    transform = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_crop_and_resize")[int(b.rng.integers(5))]
    return b("Resize", x, "", b.constant(scales), mode=mode, coordinate_transformation_mode=transform)


def windowed(b: Parts, x: str) -> str:
    op = ("MaxPool", "AveragePool", "LpPool")[int(b.rng.integers(3))]
    sizes = {name: [int(b.rng.integers(1, most)) for _ in range(2)] for name, most in (("kernel_shape", 5), ("strides", 4))}
    extra: dict[str, Any] = {"ceil_mode": int(b.rng.integers(2))}
    if b.rng.random() < 0.3:
        extra["auto_pad"] = ("SAME_UPPER", "SAME_LOWER", "VALID")[int(b.rng.integers(3))]
    else:
        extra["pads"] = [int(b.rng.integers(3)) for _ in range(4)]
    return b(op, x, **sizes, **extra)


def whole(b: Parts, x: str) -> str:
    """What reads every cell, the batch perhaps as well."""
    axes = [int(axis) for axis in b.rng.permutation(4)[: int(b.rng.integers(1, 5))]]
    op = ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2", "ReduceProd", "ReduceLogSumExp")[int(b.rng.integers(6))]
    return b("Sub", x, b(op, x, b.constant(axes, np.int64), keepdims=1))


def chosen(b: Parts, x: str) -> str:
    """A branch by a number of the image, or by a constant."""
    known = b.rng.random() < 0.5
    total = b("ReduceSum", x, keepdims=0)
    condition = b.constant(b.rng.random() < 0.5, np.bool_) if known else b("Greater", total, b.number())
    bodies = []
    for name, op in (("then", "Relu"), ("else", "Neg")):
        out = f"{b.stem}/{name}"
        bodies.append(
            helper.make_graph([helper.make_node(op, [x], [out])], name, [], [helper.make_tensor_value_info(out, FLOAT, None)])
        )
    return b("If", condition, then_branch=bodies[0], else_branch=bodies[1])


def looped(b: Parts, x: str) -> str:
    name = b.stem
    body = helper.make_graph(
        [helper.make_node("Relu", [f"{name}/v"], [f"{name}/w"]), helper.make_node("Identity", [f"{name}/go"], [f"{name}/on"])], "body",
        [helper.make_tensor_value_info(f"{name}/i", INT64, []), helper.make_tensor_value_info(f"{name}/go", BOOL, []),
         helper.make_tensor_value_info(f"{name}/v", FLOAT, None)],
        [helper.make_tensor_value_info(f"{name}/on", BOOL, []), helper.make_tensor_value_info(f"{name}/w", FLOAT, None)],
    )  # fmt: skip
    times = (0, 1, 3, -1, 1000, 1 << 40)[int(b.rng.integers(6))]
    return b("Loop", b.constant(times, np.int64), b.constant(True, np.bool_), x, body=body)


def picked(b: Parts, x: str) -> str:
    """By indices of channels or lines."""
    axis = int(b.rng.integers(4))
    indices = [b.integer(3) for _ in range(int(b.rng.integers(1, 6)))]
    return b("Gather", x, b.constant(indices, np.int64), axis=axis)


def parted(b: Parts, x: str) -> str:
    axis = int(b.rng.integers(4))
    first = b("Split", x, outputs=2, axis=axis, num_outputs=2)
    return b("Concat", first.removesuffix("0") + "1", first, axis=axis)


def transposed(b: Parts, x: str) -> str:
    return b("Transpose", x, perm=[int(axis) for axis in b.rng.permutation(4)])


def compared(b: Parts, x: str) -> str:
    return b("Where", b("Greater", x, b.number()), x, b.number())


def searched(b: Parts, x: str) -> str:
    """Sizes that depend on numbers."""
    found = b("NonZero", x)
    return b("Add", x, b("Cast", b("Size", found), to=FLOAT))


def stretched(b: Parts, x: str) -> str:
    if b.rng.random() < 0.5:
        return b("Tile", x, b.constant([1, 1, int(b.rng.integers(4)), 1], np.int64))
    return b("Expand", b("ReduceMax", x, b.constant([2, 3], np.int64), keepdims=1), b("Shape", x))


def quantised(b: Parts, x: str) -> str:
    scale, zero = b.constant(float(b.rng.choice([0.0, 0.1, -1.0, np.inf]))), b.constant(3, np.uint8)
    return b("DequantizeLinear", b("QuantizeLinear", x, scale, zero), scale, zero)


def various(b: Parts, x: str) -> str:
    how = int(b.rng.integers(7))
    if how == 0:
        return b("Softmax", x, axis=int(b.rng.integers(-4, 4)))
    if how == 1:
        return b("LRN", x, size=int(b.rng.integers(1, 6)))
    if how == 2:
        return b("CumSum", x, b.constant(int(b.rng.integers(-4, 4)), np.int32))
    if how == 3:
        return b("Clip", x, b.number(), b.number())
    if how == 4:
        return b("Dropout", x, b.constant(0.5), b.constant(b.rng.random() < 0.5, np.bool_))
    if how == 5:
        return b("SequenceAt", b("SequenceConstruct", x, x), b.constant(b.integer(2), np.int64))
    return b("MeanVarianceNormalization", x)


PIECES: Sequence[Callable[[Parts, str], str]] = (
    integer_arithmetic, unary, binary, by_shape, padded, sliced, resized, windowed, whole, chosen, looped, picked, parted, transposed,
    compared, searched, stretched, quantised, various,
)  # fmt: skip


def inserted(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Operators between a value and one of its readers."""
    graph = proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    places = [(number, place) for number, node in enumerate(graph.node) for place, name in enumerate(node.input)
              if name and name not in weights]  # fmt: skip
    if not places:
        return
    number, place = places[int(rng.integers(len(places)))]
    parts = Parts(f"new{len(graph.node)}", rng)
    result = PIECES[int(rng.integers(len(PIECES)))](parts, graph.node[number].input[place])
    graph.node[number].input[place] = result
    for node in reversed(parts.nodes):
        graph.node.insert(number, node)
    graph.initializer.extend(parts.weights)


def odd_numbers(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """NaN, infinities and denormals among weights."""
    floats = [tensor for tensor in proto.graph.initializer if tensor.data_type == FLOAT]
    if floats:
        tensor = floats[int(rng.integers(len(floats)))]
        values = np.array(numpy_helper.to_array(tensor))
        if values.size:
            values.flat[int(rng.integers(values.size))] = rng.choice(FLOATS)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def other_attribute(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A small number in place of another."""
    numbers = [attribute for node in proto.graph.node for attribute in node.attribute if attribute.type in (2, 7)]
    if numbers:
        attribute = numbers[int(rng.integers(len(numbers)))]
        if attribute.type == 2:
            attribute.i = int(rng.integers(-1, 4))
        elif attribute.ints:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = int(rng.integers(0, 5))


def own_name(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A name of ours for a value or a node."""
    graph = proto.graph
    new = OURS[int(rng.integers(len(OURS)))]
    if rng.random() < 0.4 and graph.node:
        graph.node[int(rng.integers(len(graph.node)))].name = new
        return
    names = [
        *(value.name for value in (*graph.input, *graph.initializer)),
        *(name for node in graph.node for name in node.output),
    ]
    old = str(rng.choice(names)) if names else ""
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [new if name == old else name for name in side]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new if value.name == old else value.name


def open_size(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A batch of another size, or with a name; an output without a shape."""
    for value in proto.graph.output:
        if rng.random() < 0.5:
            value.type.tensor_type.ClearField("shape")
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            if rng.random() < 0.5:
                dims[0].dim_value = int(rng.integers(0, 5))
            elif rng.random() < 0.8:
                dims[0].dim_param = OURS[int(rng.integers(len(OURS)))]


def other_output(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A value inside the graph as an output, instead or beside."""
    names = [name for node in proto.graph.node for name in node.output if name]
    if names:
        if rng.random() < 0.7:
            del proto.graph.output[:]
        proto.graph.output.append(helper.make_tensor_value_info(str(rng.choice(names)), FLOAT, None))


def as_constant(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A weight as a Constant node, or as an input with a default."""
    graph = proto.graph
    if not graph.initializer:
        return
    number = int(rng.integers(len(graph.initializer)))
    tensor = onnx.TensorProto.FromString(graph.initializer[number].SerializeToString())
    if rng.random() < 0.5:
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        return
    del graph.initializer[number]
    graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))


def half(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A part of the graph in half or double precision."""
    kind = (TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)[int(rng.integers(3))]
    for value in proto.graph.input:
        if value.type.tensor_type.elem_type == FLOAT and rng.random() < 0.5:
            value.type.tensor_type.elem_type = kind
            name = f"{value.name}/single"
            for node in proto.graph.node:
                node.input[:] = [name if other == value.name else other for other in node.input]
            proto.graph.node.insert(0, helper.make_node("Cast", [value.name], [name], to=FLOAT))


GENTLE = (
    inserted,
    inserted,
    inserted,
    inserted,
    odd_numbers,
    other_attribute,
    own_name,
    open_size,
    other_output,
    as_constant,
    half,
)
