"""Reading a model file: everything that can be wrong with it is said here, before any pass runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from kcompiler.passes.rules.cells import MERGES, POINTWISE
from kcompiler.runtime.errors import ModelError, UsageError

Shape = tuple[int, int, int]
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
Layout = Literal["NCHW", "NHWC"]
CHANNELS_FIRST = (
    "Conv", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "BatchNormalization",
    "InstanceNormalization", "GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth", "QLinearConv", "ConvInteger",
    "ConvTranspose", "DeformConv",
)  # fmt: skip
"""Operators that are defined on [N, C, H, W]: an image that one reads is that."""
CHANNELS = (1, 3, 4)
"""Of pictures: gray, colours, colours with transparency."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checked model file.

    Attributes:
        path: the file.
        model: its proto, external weights left on disk.
        image: name of the image input.
        layout: of the image input, as asked for; else "NHWC" if it goes to Transposes to channels first, as in TensorFlow's
            exports, with nothing but arithmetic on its cells before.
        shape: (channels, height, width) of the image, whatever the layout.
        sha256: of the file and, after it, its external data files in order of name.
    """

    path: Path
    model: onnx.ModelProto
    image: str
    layout: Layout
    shape: Shape
    sha256: str


def load(path: Path, input_shape: tuple[int, ...] | None = None, layout: Layout | None = None) -> Source:
    """Reads and checks ``path``.

    Args:
        path: an ONNX file.
        input_shape: ([1,] channels, height, width) where the model leaves them open; in the order of its own input.
        layout: of the image input, where the model does not tell.

    Raises:
        ModelError: not a readable, valid ONNX model with one float32 image input of known size and layout.
        UsageError: ``layout`` is none.
    """
    if layout not in (None, "NCHW", "NHWC"):
        raise UsageError(f"layout is {layout!r}, expected 'NCHW' or 'NHWC'")
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected an ONNX model")
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX file ({error}); export the model to ONNX first") from error
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file, or one without any node; export the model to ONNX first")
    files = _external_files(path, model)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, OSError) as error:
        raise ModelError(f"{path}: the ONNX checker rejects it: {error}") from error
    image = _image_input(path, model.graph)
    random = [node for node in model.graph.node if node.op_type in RANDOM]
    if random:
        raise ModelError(
            f"{path}: node {random[0].name or random[0].output[0]} ({random[0].op_type}) is random, so that outputs differ "
            "from run to run; export the model in inference mode"
        )
    found = layout or _layout(model.graph, image.name)
    shape = _image_shape(path, image, found or "NCHW", input_shape)
    if found is None and shape[2] in CHANNELS and shape[0] not in CHANNELS:
        raise ModelError(
            f"{path}: image input {image.name} {_dims(image)} may have its channels last, and nothing that reads it tells; "
            "say which with --layout NHWC or --layout NCHW"
        )
    return Source(path, model, image.name, found or "NCHW", shape, _digest([path, *files]))


def _external_files(path: Path, model: onnx.ModelProto) -> list[Path]:
    """The files of weights beside the model, all inside its folder (the checker refuses links and escapes as well)."""
    folder = path.parent.resolve()
    files = set()
    for tensor in (*_tensors(model.graph), *(one for function in model.functions for one in _of_nodes(function.node))):
        if uses_external_data(tensor):
            file = (folder / ExternalDataInfo(tensor).location).resolve()
            if not file.is_relative_to(folder):
                raise ModelError(
                    f"{path}: weight {tensor.name} lies outside the model's folder ({file}); keep weights beside the model"
                )
            if not file.is_file():
                raise ModelError(
                    f"{path}: weight {tensor.name} is missing, its file {file} does not exist; copy it beside the model"
                )
            files.add(file)
    return sorted(files)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The weights of a graph: initializers and what attributes hold, also in the bodies of If and Loop."""
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for body in (attribute.g, *attribute.graphs):
            yield from _tensors(body)


def _image_input(path: Path, graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    images = [value for value in inputs if len(value.type.tensor_type.shape.dim) == 4]
    found = ", ".join(f"{v.name} {_dims(v)}" for v in inputs) or "none"
    if len(images) != 1 or len(inputs) != 1:
        raise ModelError(f"{path}: expected exactly one input, an image [N, C, H, W]; found {len(inputs)}: {found}")
    image: onnx.ValueInfoProto = images[0]
    if image.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(image.type.tensor_type.elem_type)
        raise ModelError(f"{path}: image input {image.name} is {kind}, expected FLOAT (float32); export with a float32 input")
    return image


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim]


def to_channels_first(graph: onnx.GraphProto, image: str) -> list[onnx.NodeProto]:
    """The nodes that bring an image [N, H, W, C] to [N, C, H, W]."""
    return [node for node in graph.node if image in node.input and _is_to_channels_first(node)]


def _is_to_channels_first(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and any(a.name == "perm" and list(a.ints) == [0, 3, 1, 2] for a in node.attribute)


def _layout(graph: onnx.GraphProto, image: str) -> Layout | None:
    """NHWC if all that is made of the image goes, cell by cell, to a Transpose to channels first; None if nothing tells."""
    outputs = {value.name for value in graph.output}
    waiting, seen, transposed, told = [image], {image}, False, True
    while waiting:
        name = waiting.pop()
        told &= name not in outputs
        for node in (node for node in graph.node if name in node.input):
            if _is_to_channels_first(node):
                transposed = True
            elif node.op_type in CHANNELS_FIRST:
                return "NCHW"
            elif node.op_type not in (*POINTWISE, *MERGES) or len(node.output) != 1:
                told = False
            elif node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])
    return "NHWC" if transposed and told else None


def _image_shape(path: Path, image: onnx.ValueInfoProto, layout: Layout, given: tuple[int, ...] | None) -> Shape:
    dims = _dims(image)[1:]
    wanted = tuple(given)[-3:] if given is not None else tuple(dims)
    if given is not None and (len(given) not in (3, 4) or (len(given) == 4 and given[0] != 1) or min(given) < 1):
        raise ModelError(f"{path}: input shape {list(given)} is not [1,]{','.join(layout[1:])} with sizes of at least 1")
    open_dims = [dim for dim in wanted if not isinstance(dim, int) or dim < 1]
    if open_dims:
        raise ModelError(
            f"{path}: image input {image.name} has open sizes {dims}; "
            f"say which size to compile for, for example --input-shape 3,224,224"
        )
    for axis, (dim, size) in enumerate(zip(dims, wanted, strict=True)):
        if isinstance(dim, int) and dim != size:
            raise ModelError(
                f"{path}: image input {image.name} is {dims} but the input shape says {list(wanted)} (axis {axis + 1})"
            )
    sizes = dict(zip(layout[1:], (int(size) for size in wanted), strict=True))
    return sizes["C"], sizes["H"], sizes["W"]


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
