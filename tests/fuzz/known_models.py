"""Models that once made a traceback, a hang or the end of the process; each made anew, by the function of its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.cases import Case, Content, Files

MODEL, WEIGHTS = "model.onnx", "weights.bin"
IMAGE = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
SCORES = helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)
Maker = Callable[[], Iterator[Case]]
MAKERS: dict[str, Maker] = {}


def cases(seed: int = 0) -> Iterator[Case]:
    """All of them; the same for each seed."""
    for maker in MAKERS.values():
        yield from maker()


def known(maker: Maker) -> Maker:
    MAKERS[maker.__name__] = maker
    return maker


def convolution(weights: str = "weights", **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", ["image", weights], ["maps"], "conv", kernel_shape=[3, 3], **attributes)


def filters(channels: int = 4, depth: int = 3) -> TensorProto:
    values = np.random.default_rng(0).standard_normal((channels, depth, 3, 3)).astype(np.float32)
    return numpy_helper.from_array(values, "weights")


def head(maps: str = "maps") -> list[onnx.NodeProto]:
    """The mean of each map."""
    return [helper.make_node("GlobalAveragePool", [maps], ["means"]), helper.make_node("Flatten", ["means"], ["scores"])]


def model(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto] | None = None,
    *,
    image: onnx.ValueInfoProto = IMAGE,
    output: onnx.ValueInfoProto = SCORES,
    functions: list[onnx.FunctionProto] | None = None,
    opsets: tuple[tuple[str, int], ...] = (("", 18),),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "hostile", [image], [output], weights if weights is not None else [filters()])
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions or [])


def plain() -> onnx.ModelProto:
    return model([convolution(), *head()])


def files(made: onnx.ModelProto, **others: Content) -> Files:
    return {MODEL: made.SerializeToString(), **{name.replace("_", "."): content for name, content in others.items()}}


@known
def attribute_reference() -> Iterator[Case]:
    """An attribute that refers to one of a function, outside any."""
    for operator, name, kind in (("conv", "group", 2), ("conv", "pads", 7), ("mean", "axes", 7)):
        made = plain()
        node = made.graph.node[0 if operator == "conv" else 1]
        node.attribute.append(onnx.AttributeProto(name=name, ref_attr_name="outer", type=kind))
        yield f"attribute reference {name}", files(made)
    made = plain()
    constant = onnx.NodeProto(op_type="Constant", output=["c"])
    constant.attribute.append(onnx.AttributeProto(name="value", ref_attr_name="outer", type=4))
    made.graph.node.insert(0, constant)
    yield "attribute reference of a constant", files(made)


@known
def groups() -> Iterator[Case]:
    for group in (0, -1, -3, 2, 1 << 40, -(1 << 63)):
        yield f"group {group}", files(model([convolution(group=group), *head()]))
        quantised = helper.make_node("ConvTranspose", ["image", "weights"], ["maps"], group=group)
        yield f"group {group} transposed", files(model([quantised, *head()]))


@known
def external_data() -> Iterator[Case]:
    """Places in files of weights."""
    long = "n" * 5000
    entries: dict[str, dict[str, str]] = {
        "negative offset": {"offset": "-4"},
        "textual offset": {"offset": "four"},
        "huge offset": {"offset": str(1 << 62)},
        "offset past 64 bits": {"offset": "9" * 30},
        "offset of 5,000 digits": {"offset": "9" * 5000},
        "negative length": {"length": "-432"},
        "textual length": {"length": "all"},
        "short length": {"length": "3"},
        "huge length": {"length": str(1 << 62)},
        "NUL": {"location": "weights\0.bin"},
        "no location": {"location": ""},
        "folder": {"location": "."},
        "root": {"location": "/"},
        "parent": {"location": "../weights.bin"},
        "device": {"location": "/dev/zero"},
        "long name": {"location": long},
        "deep name": {"location": "/".join(["n"] * 5000)},
        "surrogate": {"location": "wei\u202eghts.bin"},
        "newline": {"location": "wei\nghts.bin"},
        "unknown key": {"colour": "blue"},
    }
    for name, entry in entries.items():
        yield f"external data, {name}", files(external(**{"location": WEIGHTS, **entry}), weights_bin=bytes(432))
    made = external(location=WEIGHTS)
    yield "external data, link loop", files(made, weights_bin=_loop)
    yield "external data, link", files(made, weights_bin=lambda path: path.symlink_to("/etc/hostname"))
    yield "external data, pipe", files(made, weights_bin=os.mkfifo)
    yield "external data, folder", files(made, weights_bin=Path.mkdir)
    yield "external data, too short", files(made, weights_bin=bytes(10))
    yield "external data, nothing", files(made, weights_bin=b"")
    yield "external data, absent", files(made)
    yield "external data, sparse", files(made, weights_bin=_sparse)
    made = external(location=WEIGHTS)
    made.graph.initializer[0].dims[0] = 1 << 36
    yield "external data, sparse and read", files(made, weights_bin=_sparse)
    made = external(location=WEIGHTS)
    made.graph.initializer[0].ClearField("external_data")
    yield "external data, no entries", files(made)
    made = external(location=WEIGHTS)
    made.graph.initializer[0].external_data.add(key="location", value="other.bin")
    yield "external data, two locations", files(made, weights_bin=bytes(432))


def external(**entries: str) -> onnx.ModelProto:
    made = plain()
    weights = made.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weights.external_data.add(key=key, value=value)
    return made


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


@known
def image_sizes() -> Iterator[Case]:
    sizes = (
        (1 << 31, 1),
        (1 << 31, 1 << 31),
        (1 << 62, 3),
        (1, 1 << 33),
        (46341, 46341),
        (1 << 20, 1 << 10),
        (4096, 4096),
        (0, 8),
        (-5, 8),
    )
    for height, width in sizes:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])
        yield f"image of {height} x {width}", files(model([convolution(), *head()], image=image))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1 << 31, 8, 8])
    yield "image of 2^31 channels", files(model([helper.make_node("Relu", ["image"], ["maps"]), *head()], image=image))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1 << 31, 3, 8, 8])
    yield "batch of 2^31", files(model([convolution(), *head()], image=image))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1 << 12, 3, 8, 8])
    yield "batch of 2^12", files(model([convolution(), *head()], image=image))


@known
def doubling_functions() -> Iterator[Case]:
    """Each of them calls the one before it twice."""
    for times in (25, 200):
        functions = [
            helper.make_function(
                "hostile",
                f"f{number}",
                ["x"],
                ["z"],
                _calls(number),
                [helper.make_opsetid("", 18), helper.make_opsetid("hostile", 1)],
            )
            for number in range(times)
        ]
        nodes = [helper.make_node(f"f{times - 1}", ["image"], ["maps"], domain="hostile"), *head()]
        yield f"functions that double {times} times", files(model(nodes, functions=functions, opsets=(("", 18), ("hostile", 1))))
    for name, called in (("itself", "f0"), ("each other", "f1")):
        functions = [
            helper.make_function("hostile", f"f{number}", ["x"], ["y"], [helper.make_node(other, ["x"], ["y"], domain="hostile")],
                                 [helper.make_opsetid("", 18), helper.make_opsetid("hostile", 1)])
            for number, other in enumerate((called, "f0"))
        ]  # fmt: skip
        nodes = [helper.make_node("f0", ["image"], ["maps"], domain="hostile"), *head()]
        yield f"functions that call {name}", files(model(nodes, functions=functions, opsets=(("", 18), ("hostile", 1))))


def _calls(number: int) -> list[onnx.NodeProto]:
    if not number:
        return [helper.make_node("Relu", ["x"], ["z"])]
    calls = ((f"f{number - 1}", read, made) for read, made in (("x", "y"), ("y", "z")))
    return [helper.make_node(name, [read], [made], domain="hostile") for name, read, made in calls]


@known
def long_chains() -> Iterator[Case]:
    for count in (300, 1000, 110_000):
        nodes = [helper.make_node("Relu", [f"v{number}"], [f"v{number + 1}"]) for number in range(count)]
        nodes[0].input[0] = "image"
        yield f"{count} Relus", files(model([*nodes, *head(f"v{count}")], []))
    wide = [helper.make_node("Relu", ["image"], [f"v{number}"]) for number in range(2000)]
    joined = helper.make_node("Sum", [f"v{number}" for number in range(2000)], ["maps"])
    yield "2000 Relus side by side", files(model([*wide, joined, *head()], []))


@known
def deep_bodies() -> Iterator[Case]:
    """Bodies of If in each other: as deep as protobuf reads, and deeper."""
    other = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["e"])], "other", [], [helper.make_tensor_value_info("e", 1, None)]
    )
    for depth in (10, 20, 30):
        inner = helper.make_node("Relu", ["image"], ["y0"])
        try:
            for level in range(depth):
                body = helper.make_graph([inner], f"b{level}", [], [helper.make_tensor_value_info(f"y{level}", 1, None)])
                inner = helper.make_node("If", ["c"], [f"y{level + 1}"], then_branch=body, else_branch=other)
            made = model([inner, *head(f"y{depth}")], [numpy_helper.from_array(np.array(True), "c")])
        except DecodeError:
            continue
        yield f"{depth} bodies in each other", files(made)
    data = b""
    for _ in range(3000):
        data = _field(7, _field(1, _field(5, _field(6, data))))  # graph, node, attribute, graph
    yield "3000 bodies in each other", {MODEL: data}


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    length, size = bytearray(), len(data)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


@known
def integer_division() -> Iterator[Case]:
    for operator in ("Div", "Mod"):
        for kind in (np.int32, np.int64):
            for number, by in ((np.iinfo(kind).min, -1), (1, 0)):
                name = f"{operator} {np.dtype(kind).name} {number} by {by}"
                constants = [numpy_helper.from_array(np.array([value], kind), key) for key, value in (("a", number), ("b", by))]
                nodes = [
                    helper.make_node(operator, ["a", "b"], ["q"]),
                    helper.make_node("Cast", ["q"], ["f"], to=1),
                    helper.make_node("Mul", ["image", "f"], ["maps"]),
                    *head(),
                ]
                yield f"{name}, folded", files(model(nodes, constants))
                nodes = [
                    helper.make_node("Mul", ["image", "zero"], ["none"]),
                    helper.make_node("Cast", ["none"], ["z"], to=helper.np_dtype_to_tensor_dtype(np.dtype(kind))),
                    helper.make_node("Add", ["z", "a"], ["big"]),
                    helper.make_node(operator, ["big", "b"], ["q"]),
                    helper.make_node("Cast", ["q"], ["f"], to=1),
                    helper.make_node("Add", ["image", "f"], ["maps"]),
                    *head(),
                ]
                zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
                yield f"{name}, of the image", files(model(nodes, [*constants, zero]))
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"], start=2, end=3),
        helper.make_node("Mul", ["shape", "none"], ["z"]),
        helper.make_node("Add", ["z", "a"], ["big"]),
        helper.make_node("Div", ["big", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["f"], to=1),
        helper.make_node("Mul", ["image", "f"], ["maps"]),
        *head(),
    ]
    values = {"none": 0, "a": np.iinfo(np.int64).min, "b": -1}
    constants = [numpy_helper.from_array(np.array([value], np.int64), key) for key, value in values.items()]
    yield "Div of a shape", files(model(nodes, constants))


@known
def outputs() -> Iterator[Case]:
    nodes = [convolution(), *head()]
    for shape in ([1, 0], ["n", 0], [0, 0], [1, -1], [1, 1 << 31], []):
        yield f"output declared {shape}", files(model(nodes, output=helper.make_tensor_value_info("scores", 1, shape)))
    limits = [numpy_helper.from_array(np.array([number]), name) for name, number in (("from", 0), ("to", 0), ("axes", 1))]
    pooled, flat = head()
    flat.output[0] = "all"
    empty = [convolution(), pooled, flat, helper.make_node("Slice", ["all", "from", "to", "axes"], ["scores"])]
    for shape in ([1, 0], ["n", 0]):
        scores = helper.make_tensor_value_info("scores", 1, shape)
        yield f"empty output {shape}", files(model(empty, [filters(), *limits], output=scores))


@known
def odd_attributes() -> Iterator[Case]:
    odd = (-1, 0, 1 << 31, 1 << 40, -(1 << 63))
    for size in odd:
        for name in ("strides", "dilations", "kernel_shape"):
            attributes = {"kernel_shape": [3, 3], name: [size, size]}
            yield (
                f"Conv with {name} {size}",
                files(model([helper.make_node("Conv", ["image", "weights"], ["maps"], **attributes), *head()])),
            )
            for operator in ("MaxPool", "AveragePool", "LpPool"):
                if (operator == "LpPool" and name == "dilations") or (operator == "AveragePool" and name == "dilations"):
                    continue
                yield (
                    f"{operator} with {name} {size}",
                    files(model([helper.make_node(operator, ["image"], ["maps"], **attributes), *head()])),
                )
        for operator in ("Conv", "MaxPool"):
            reads = ["image", "weights"] if operator == "Conv" else ["image"]
            node = helper.make_node(operator, reads, ["maps"], kernel_shape=[3, 3], pads=[size] * 4)
            yield f"{operator} with pads {size}", files(model([node, *head()]))
        for operator, name in (("DepthToSpace", "blocksize"), ("SpaceToDepth", "blocksize"), ("LRN", "size")):
            yield (
                f"{operator} with {name} {size}",
                files(model([helper.make_node(operator, ["image"], ["maps"], **{name: size}), *head()], [])),
            )
        for operator in ("Concat", "Softmax", "Flatten", "Gather", "Split"):
            reads, weights = ["image"], []
            if operator == "Gather":
                reads, weights = ["image", "index"], [numpy_helper.from_array(np.array([size]), "index")]
            node = helper.make_node(operator, reads, ["maps"], axis=1 if operator == "Gather" else size)
            after = head() if operator != "Flatten" else [helper.make_node("Identity", ["maps"], ["scores"])]
            yield f"{operator} with axis or index {size}", files(model([node, *after], weights))
        for operator in ("Expand", "Reshape", "Tile", "ConstantOfShape"):
            weights = [numpy_helper.from_array(np.array([1, 3, size, 8]), "sizes")]
            if operator == "ConstantOfShape":
                nodes = [helper.make_node(operator, ["sizes"], ["c"]), helper.make_node("Add", ["image", "c"], ["maps"])]
            else:
                nodes = [helper.make_node(operator, ["image", "sizes"], ["maps"])]
            yield f"{operator} with size {size}", files(model([*nodes, *head()], weights))
        weights = [numpy_helper.from_array(np.array([1, 1, size, size], np.float32), "scales")]
        yield f"Resize by {size}", files(model([helper.make_node("Resize", ["image", "", "scales"], ["maps"]), *head()], weights))
        weights = [numpy_helper.from_array(np.array([0, 0, size, size, 0, 0, size, size], np.int64), "pads")]
        yield f"Pad by {size}", files(model([helper.make_node("Pad", ["image", "pads"], ["maps"]), *head()], weights))


@known
def weight_sizes() -> Iterator[Case]:
    for dims in (
        [-4, 3, 3, 3],
        [1 << 40, 3, 3, 3],
        [1 << 31, 1 << 31, 3, 3],
        [0, 3, 3, 3],
        [4, 0, 3, 3],
        [4, 3, 0, 3],
        [4, 3, 3],
        [4] * 100,
    ):
        made = plain()
        del made.graph.initializer[0].dims[:]
        made.graph.initializer[0].dims.extend(dims)
        yield f"weights of {str(dims)[:40]}", files(made)
    made = plain()  # its other sizes stay unknown to inference
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(108, np.float32), "weights"))
    made.graph.node[0].ClearField("attribute")
    yield "weights of an axis", files(made)
    for kind in (0, 8, 10, 14, 23, 99, -1):
        made = plain()
        made.graph.initializer[0].data_type = kind
        yield f"weights of type {kind}", files(made)


@known
def own_names() -> Iterator[Case]:
    """Names that compiled models give to their own inputs, tables and nodes: each of them at each value, and at each node."""
    places = ("image", "weights", "maps", "means", "scores")
    for first in range(len(OURS)):
        names = [OURS[(first + place) % len(OURS)] for place in range(len(places))]
        made = plain()
        rename(made.graph, dict(zip(places, names, strict=True)))
        for node, name in zip(made.graph.node, names[1:], strict=False):
            node.name = name
        yield f"values and nodes named {OURS[first]} and further", files(made)


OURS = (
    "positions",
    "fill",
    "class/rows",
    "class/columns",
    "table/image",
    "table/maps",
    "index/a",
    "shape/a",
    "constant",
    "Gather",
)


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Gives values other names."""
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)


@known
def opsets() -> Iterator[Case]:
    clip = helper.make_node("Clip", ["image", "", "most"], ["maps"])
    most = numpy_helper.from_array(np.array(0.5, np.float32), "most")
    for imports in (
        (("", 18), ("", 18)),
        (("", 18), ("", 11)),
        (("", 11), ("ai.onnx", 18)),
        (("", 0),),
        (("", -1),),
        (("", 99),),
        (),
        (("x", 1),),
    ):
        yield f"opsets {imports}", files(model([clip, *head()], [most], opsets=imports))
        yield f"opsets {imports} of a convolution", files(model([convolution(), *head()], opsets=imports))
    for old in (1, 5, 6, 7, 9, 10, 11, 12, 13):
        yield f"opset {old} with an empty input", files(model([clip, *head()], [most], opsets=(("", old),)))


@known
def structure() -> Iterator[Case]:
    """Nodes in circles, names twice, names that nobody makes."""
    yield "no bytes", {MODEL: b""}
    yield "folder", {MODEL: Path.mkdir}
    yield "pipe", {MODEL: os.mkfifo}
    yield "link loop", {MODEL: _loop}
    yield "sparse file", {MODEL: _sparse}
    yield "text", {MODEL: b"hello\nworld\n" * 1000}
    yield "zeros", {MODEL: bytes(1 << 20)}
    circle = [helper.make_node("Add", ["image", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]), *head("b")]
    yield "circle", files(model(circle, []))
    yield "reads itself", files(model([helper.make_node("Add", ["image", "maps"], ["maps"]), *head()], []))
    pool = helper.make_node(
        "MaxPool", ["image"], ["small"], kernel_shape=[1, 1], strides=[7, 3]
    )  # two rows, for a window of three
    empty = helper.make_node("Conv", ["small", "weights"], ["maps"], "conv", kernel_shape=[3, 3])
    yield "map without cells", files(model([pool, empty, *head()]))
    yield "node of nothing", files(model([convolution(), *head(), onnx.NodeProto()]))
    yield "made twice", files(model([convolution(), convolution(), *head()]))
    yield "made by nobody", files(model([helper.make_node("Add", ["image", "nobody"], ["maps"]), *head()], []))
    yield "output of nobody", files(model([convolution()]))
    yield "no output", _edited(lambda made: made.graph.ClearField("output"))
    yield "no input", _edited(lambda made: made.graph.ClearField("input"))
    yield "no graph name", _edited(lambda made: made.graph.ClearField("name"))
    yield "name not in UTF-8", {MODEL: plain().SerializeToString().replace(b"conv", b"co\xe4v")}
    yield "no operator", _edited(lambda made: made.graph.node[0].ClearField("op_type"))
    yield "no node outputs", _edited(lambda made: made.graph.node[0].ClearField("output"))
    yield "empty output name", _edited(lambda made: made.graph.node[0].output.__setitem__(0, ""))
    yield "no node inputs", _edited(lambda made: made.graph.node[0].ClearField("input"))
    yield "thousand inputs", _edited(lambda made: made.graph.node[0].input.extend(["image"] * 1000))
    yield "nodes of one name", _edited(lambda made: [node.__setattr__("name", "same") for node in made.graph.node])
    yield "name of 100,000 letters", _edited(lambda made: made.graph.node[0].__setattr__("name", "n" * 100_000))
    yield (
        "names of newlines",
        _edited(lambda made: rename(made.graph, {name: f"{name}\n\x1b[31m" for name in ("image", "maps", "scores")})),
    )
    yield "output is the image", files(model([convolution(), *head()], output=IMAGE))
    yield (
        "output is a weight",
        files(model([convolution(), *head()], output=helper.make_tensor_value_info("weights", 1, [4, 3, 3, 3]))),
    )
    listed = [helper.make_node("SequenceConstruct", ["image"], ["s"]), helper.make_node("SequenceAt", ["s", "z"], ["maps"])]
    flat, pool = (
        helper.make_node("Flatten", ["image"], ["f"]),
        helper.make_node("AveragePool", ["f"], ["scores"], kernel_shape=[1, 2]),
    )
    pool.attribute.append(helper.make_attribute("ceil_mode", 1))
    yield "pool of a row", files(model([flat, pool], []))
    limits = [numpy_helper.from_array(np.array([number]), name) for name, number in (("from", 8), ("to", 9), ("axes", 2))]
    yield (
        "slice of no line",
        files(model([helper.make_node("Slice", ["image", "from", "to", "axes"], ["maps"]), *head()], limits)),
    )
    yield "sequence", files(model([*listed, *head()], [numpy_helper.from_array(np.array(0), "z")]))
    yield "strings", files(model([helper.make_node("Cast", ["image"], ["scores"], to=8)], []))
    yield (
        "unknown domain",
        files(
            model(
                [helper.make_node("Conv", ["image", "weights"], ["maps"], domain="nowhere"), *head()],
                opsets=(("", 18), ("nowhere", 1)),
            )
        ),
    )
    yield "random", files(model([helper.make_node("RandomNormalLike", ["image"], ["maps"]), *head()], []))
    endless = helper.make_graph(
        [helper.make_node("Relu", ["v"], ["w"]), helper.make_node("Identity", ["go"], ["on"])], "body",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("go", 9, []),
         helper.make_tensor_value_info("v", 1, None)],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("w", 1, None)],
    )  # fmt: skip
    for much in ("", "many"):
        loop = helper.make_node("Loop", [much, "yes", "image"], ["maps"], body=endless)
        counts = [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.array(1 << 40), "many")]
        yield f"endless loop {much}", files(model([loop, *head()], counts))
        loop = helper.make_node("Loop", [much, "yes", "zero"], ["c"], body=endless)
        counts.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
        yield (
            f"endless loop of a constant {much}",
            files(model([loop, helper.make_node("Add", ["image", "c"], ["maps"]), *head()], counts)),
        )


def _edited(edit: Callable[[onnx.ModelProto], object]) -> Files:
    made = plain()
    edit(made)
    return files(made)
