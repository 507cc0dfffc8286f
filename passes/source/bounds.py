"""What a model may have so that reading it takes a bounded time and memory, and what no model has: checked before anything runs.

Every check is a pass over the proto: of its nodes, of the bodies in them, and of the functions that they call. Functions are
counted as often as they are called, without being expanded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path

import onnx
from onnx import AttributeProto, TensorProto

from kcompiler.passes.source.bodies import bodies
from kcompiler.passes.source.external import bytes_of, tensors
from kcompiler.runtime.errors import ModelError

LARGEST_PROTO = 1 << 31
"""Bytes of a file: protobuf reads no more."""
MOST_NODES = 20_000
"""Nodes, functions expanded: networks have thousands at the most, and compilation takes milliseconds for each."""
LARGEST_AXIS = 1 << 15
"""Pixels along an axis of an image, and channels."""
LARGEST_IMAGE = 1 << 27
"""Numbers in an image: 11,000 x 4,000 pixels in three colours."""
LARGEST_WEIGHTS = 1 << 40
"""Bytes that weights may be declared to take."""
LARGEST_NUMBER = 1 << 30
"""Size of a kernel, a stride, a pad: what operators compute from several of them stays in 64 bits."""
SIZES = ("kernel_shape", "strides", "dilations", "pads", "group", "blocksize", "output_padding", "output_shape", "block_shape")
"""Attributes of sizes in cells; none is negative but pads."""
AT_LEAST_ONE = ("kernel_shape", "strides", "dilations", "group", "blocksize")
FIELDS = {
    AttributeProto.FLOAT: "f", AttributeProto.INT: "i", AttributeProto.STRING: "s", AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g", AttributeProto.SPARSE_TENSOR: "sparse_tensor", AttributeProto.TYPE_PROTO: "tp",
}  # fmt: skip
"""The field that holds the value of an attribute, by its type, where it is a single one."""
Function = tuple[str, str, str]
"""Domain, name and overload."""


def check_file(path: Path) -> None:
    """Checks that ``path`` is a file that can be an ONNX model.

    Raises:
        ModelError: it is none, or too large.
    """
    try:
        is_file, size = path.is_file(), path.stat().st_size if path.is_file() else 0
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); expected an ONNX model") from error
    if not is_file:
        raise ModelError(f"{path}: no such file; expected an ONNX model")
    if size >= LARGEST_PROTO:
        raise ModelError(
            f"{path}: has {size:,} bytes, and protobuf reads less than {LARGEST_PROTO:,}; keep weights in a file beside it"
        )


def check_bounds(path: Path, model: onnx.ModelProto) -> None:
    """Checks that the model read from ``path`` keeps to the bounds of this module.

    Raises:
        ModelError: it does not.
    """
    _check_opsets(path, model)
    _check_texts(path, model.graph)
    _check_count(path, model)
    if not model.graph.output:
        raise ModelError(f"{path}: has no output; export the model again")
    for tensor in tensors(model.graph):
        _check_tensor(path, tensor)
    for node in every_node(model.graph.node):
        for attribute in node.attribute:
            _check_attribute(path, node, attribute)


def check_image(path: Path, image: str, sizes: tuple[int, int, int]) -> None:
    """Checks the sizes (channels, height, width) of the image.

    Raises:
        ModelError: it is too large.
    """
    if max(sizes) > LARGEST_AXIS or prod(sizes) > LARGEST_IMAGE:
        raise ModelError(
            f"{path}: image input {image} is of {' x '.join(map(str, sizes))} (channels, height, width), expected at most "
            f"{LARGEST_AXIS:,} along an axis and {LARGEST_IMAGE:,} numbers; export it for smaller images"
        )


def every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those in their bodies."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from every_node(body.node)


def _check_opsets(path: Path, model: onnx.ModelProto) -> None:
    """One version for each domain; the standard domain, which has two names, is among them."""
    versions: dict[str, set[int]] = {}
    for opset in model.opset_import:
        versions.setdefault("" if opset.domain == "ai.onnx" else opset.domain, set()).add(opset.version)
    several = [domain for domain, found in versions.items() if len(found) > 1]
    if several:
        found = " and ".join(map(str, sorted(versions[several[0]])))
        raise ModelError(f"{path}: imports the versions {found} of the operators of {several[0] or 'ONNX'}; export it again")
    if "" not in versions:
        raise ModelError(f"{path}: does not say which version of ONNX's operators it uses (opset); export the model again")


def _check_texts(path: Path, graph: onnx.GraphProto) -> None:
    """Names are text: protobuf reads others as bytes."""
    values = (*graph.input, *graph.output, *graph.initializer)
    names = [text for node in graph.node for text in (node.name, node.op_type, node.domain, *node.input, *node.output)]
    odd = [name for name in (*names, *(value.name for value in values)) if not isinstance(name, str)]
    if odd:
        raise ModelError(f"{path}: the name {odd[0]!r} is not in UTF-8; export the model again")


def _check_count(path: Path, model: onnx.ModelProto) -> None:
    """Counts nodes as expanded, by the counts of the functions that they call; a circle of calls has no count."""
    functions: Mapping[Function, onnx.FunctionProto] = {(one.domain, one.name, one.overload): one for one in model.functions}
    counts: dict[Function, int] = {}

    def expanded(nodes: Iterable[onnx.NodeProto], calling: tuple[Function, ...]) -> int:
        total = 0
        for node in every_node(nodes):
            called = (node.domain, node.op_type, node.overload)
            if called in calling:
                raise ModelError(f"{path}: function {node.op_type} calls itself; export the model again")
            if called in functions and called not in counts:
                if len(calling) > MOST_CALLS:
                    raise ModelError(
                        f"{path}: functions call each other more than {MOST_CALLS} deep; export it without functions"
                    )
                counts[called] = expanded(functions[called].node, (*calling, called))
            total += counts.get(called, 1)
            if total > MOST_NODES:
                raise ModelError(
                    f"{path}: has more than {MOST_NODES:,} nodes, functions expanded, and no more are compiled; "
                    "simplify the model first"
                )
        return total

    expanded(model.graph.node, ())


MOST_CALLS = 64
"""Functions that call each other, one inside the other."""


def _check_tensor(path: Path, tensor: TensorProto) -> None:
    size = bytes_of(tensor)
    if min(tensor.dims, default=0) < 0 or (size or 0) > LARGEST_WEIGHTS:
        raise ModelError(f"{path}: weight {tensor.name} has the shape {list(tensor.dims)}; export the model again")


def _check_attribute(path: Path, node: onnx.NodeProto, attribute: AttributeProto) -> None:
    where = f"{path}: node {node.name or (node.output[0] if node.output else '')} ({node.op_type})"
    if attribute.ref_attr_name:
        raise ModelError(
            f"{where}: attribute {attribute.name} refers to {attribute.ref_attr_name} of a function, and this is none; "
            "export the model again"
        )
    field = FIELDS.get(attribute.type)
    if attribute.type == AttributeProto.UNDEFINED or (
        field in ("t", "g", "sparse_tensor", "tp") and not attribute.HasField(field)
    ):
        raise ModelError(f"{where}: attribute {attribute.name} has no value; export the model again")
    if attribute.name in SIZES:
        least = 1 if attribute.name in AT_LEAST_ONE else 0 if attribute.name != "pads" else -LARGEST_NUMBER
        numbers = [attribute.i] if attribute.type == AttributeProto.INT else attribute.ints
        odd = [number for number in numbers if not least <= number <= LARGEST_NUMBER]
        if odd:
            raise ModelError(
                f"{where}: attribute {attribute.name} is {odd[0]}, expected {least} to {LARGEST_NUMBER}; export the model again"
            )
