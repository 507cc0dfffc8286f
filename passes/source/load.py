"""Loading a model file: all errors of the file are reported here, before any pass runs.

A file is valid if ONNX Runtime loads it. The ONNX checker runs first because it is fast, and files that it accepts are not opened
in ONNX Runtime here. Files that it rejects (for a missing shape that nothing needs, for example) are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from kcompiler.passes.isolation.process import Limits, check
from kcompiler.passes.source.bounds import check_bounds, check_file, check_image
from kcompiler.passes.source.external import external_files
from kcompiler.passes.source.image_layout import Layout, Shape, find_layout, image_shape, layout_of, wanted_sizes
from kcompiler.passes.source.single_image import add_batch
from kcompiler.passes.source.source_inputs import IMAGE_AXES, Value, dims, find_inputs, type_name
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ModelError, UsageError
from kcompiler.runtime.foreign import ForeignFailure
from kcompiler.runtime.inputs.elements import FLOAT32, Element, ElementName

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
ELEMENTS: dict[int, ElementName] = {
    TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16",
    TensorProto.BOOL: "bool", TensorProto.UINT8: "uint8", TensorProto.INT8: "int8", TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16", TensorProto.UINT32: "uint32", TensorProto.INT32: "int32", TensorProto.UINT64: "uint64",
    TensorProto.INT64: "int64",
}  # fmt: skip
"""Element types of image inputs."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checked model file.

    Attributes:
        path: the file.
        model: its proto, external weights left on disk.
        image: name of the image input.
        layout: of the image input, as requested; else "NHWC" if it reaches Transposes to NCHW through elementwise operators only,
            as in TensorFlow's exports; else by the sizes of its axes.
        shape: (channels, height, width) of the image in any layout.
        sha256: of the file and, after it, its external data files in order of name.
        element: element type of the image input.
        bound: values of other inputs, by name, that the model is compiled for.
        unread: zeros for inputs without readers, by name.
        notes: what was decided for the user, for the report.
        size: bytes of the file and its external data files.
        external: bytes of the external data files alone.
    """

    path: Path
    model: onnx.ModelProto
    image: str
    layout: Layout
    shape: Shape
    sha256: str
    element: Element = FLOAT32
    bound: Mapping[str, AnyArray] = field(default_factory=dict)
    unread: Mapping[str, AnyArray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    size: int = 0
    external: int = 0


def load(
    path: Path,
    input_shape: tuple[int, ...] | None = None,
    layout: Layout | None = None,
    bind: Mapping[str, Value] | None = None,
) -> Source:
    """Reads and checks ``path``.

    Args:
        path: an ONNX file.
        input_shape: ([1,] channels, height, width), in the order of the model's input, where the model leaves sizes open.
        layout: of the image input, where the graph does not determine it.
        bind: values of other inputs, by name.

    Raises:
        ModelError: not a readable model that ONNX Runtime loads, with one image input of known size and layout, and values for
            all other inputs.
        UsageError: ``layout`` is invalid, or a bound value does not fit its input.
    """
    if layout not in (None, "NCHW", "NHWC"):
        raise UsageError(f"layout is {layout!r}, expected 'NCHW' or 'NHWC'")
    model = _read(path)
    check_bounds(path, model)
    files = external_files(path, model)
    external = sum(file.stat().st_size for file in files)
    size = path.stat().st_size + external
    _check(path, Limits.of(size))
    inputs = find_inputs(path, model.graph, bind or {}, sized=input_shape is not None)
    image = inputs.image
    if len(dims(image)) == IMAGE_AXES - 1:
        add_batch(model.graph, image)
    kind = image.type.tensor_type.elem_type or TensorProto.FLOAT
    if kind not in ELEMENTS:
        raise ModelError(
            f"{path}: image input {image.name} is {type_name(kind)}, expected numbers "
            f"({', '.join(ELEMENTS.values())}); export with a float32 input"
        )
    random = [node for node in model.graph.node if node.op_type in RANDOM]
    if random:
        raise ModelError(
            f"{path}: node {random[0].name or random[0].output[0]} ({random[0].op_type}) is random, so that outputs differ "
            "from run to run; export the model in inference mode"
        )
    told = layout or find_layout(model.graph, image.name)
    sizes = wanted_sizes(path, image, input_shape, (told or "NCHW")[1:])
    known = told or layout_of(path, image, sizes)
    shape = image_shape(path, image, known, sizes)
    check_image(path, image.name, shape)
    return Source(
        path, model, image.name, known, shape, _digest([path, *files]), Element(ELEMENTS[kind]),
        inputs.bound, inputs.unread, () if known == told or known == "NCHW" else (_taken_as(image, known),),
        size, external,
    )  # fmt: skip


def _taken_as(image: onnx.ValueInfoProto, layout: Layout) -> str:
    return (
        f"image input {image.name} {dims(image)} is taken as {layout}, by the size of its last axis; --layout NCHW says otherwise"
    )


def _read(path: Path) -> onnx.ModelProto:
    check_file(path)
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX file ({error}); export the model to ONNX first") from error
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file, or one without any node; export the model to ONNX first")
    return model


def _check(path: Path, limits: Limits) -> None:
    try:
        against = check(path, limits)
    except ForeignFailure as error:
        raise ModelError(f"{path}: cannot be loaded: {error}") from error
    if against:
        raise ModelError(f"{path}: {against}")


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
