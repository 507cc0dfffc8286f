"""External weight files of a model: they must lie in its folder, must not be links, and must be as large as weights say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from onnx.external_data_helper import uses_external_data

from kcompiler.runtime.errors import ModelError

MOST_DIGITS = 19
"""Of an offset or a length: a number of 64 bits."""
SPARE_BYTES, SPARE_SHARE = 64 << 20, 1.0
"""Bytes, and share of what weights take, that a file of weights may have beside them: a model may leave some out."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight lies: the file as the model names it, and bytes; ``length`` is None where the model states none."""

    location: str
    offset: int
    length: int | None


def external_files(path: Path, model: onnx.ModelProto) -> list[Path]:
    """The external weight files of the model at ``path``, sorted by name.

    Raises:
        ModelError: a place is no place, a file is missing, lies outside the model's folder, is a link, which could expose any
            file, is shorter than its weights, or so much longer that reading it is no part of reading the model.
    """
    folder = path.parent.resolve()
    files: dict[Path, int] = {}
    for tensor in (*tensors(model.graph), *(value for function in model.functions for value in _in_attributes(function.node))):
        if uses_external_data(tensor):
            place = _place(path, tensor)
            file = _checked(path, folder, tensor.name, place.location)
            files[file] = files.get(file, 0) + _read(path, tensor, place, file)
    for file, read in files.items():
        size = file.stat().st_size
        if size > SPARE_BYTES + (1 + SPARE_SHARE) * read:
            raise ModelError(
                f"{path}: its file of weights {file.name} has {size:,} bytes, of which weights take {read:,}; save it anew"
            )
    return sorted(files)


def _place(path: Path, tensor: TensorProto) -> Place:
    entries = _entries(path, tensor)
    if not entries.get("location"):
        raise ModelError(f"{path}: weight {tensor.name} is in a file without a name; export the model again")
    length = _number(path, tensor, entries, "length")
    return Place(entries["location"], _number(path, tensor, entries, "offset") or 0, length)


def _entries(path: Path, tensor: TensorProto) -> Mapping[str, str]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) < len(tensor.external_data):
        raise ModelError(f"{path}: weight {tensor.name} has two places in files; export the model again")
    return entries


def _number(path: Path, tensor: TensorProto, entries: Mapping[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise ModelError(
            f"{path}: weight {tensor.name} has the {key} {text!r}, expected a number of bytes; export the model again"
        )
    return int(text)


def _checked(path: Path, folder: Path, weight: str, location: str) -> Path:
    try:
        file = (folder / location).resolve()
        is_file = file.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, NUL
        raise ModelError(f"{path}: weight {weight} lies in {location!r}, which is no file name ({error})") from error
    if not file.is_relative_to(folder):
        raise ModelError(f"{path}: weight {weight} lies outside the model's folder ({file}); keep weights beside the model")
    if not is_file:
        raise ModelError(f"{path}: weight {weight} is missing, its file {file} does not exist; copy it beside the model")
    links = "a symbolic link" if folder / location != file and _has_link(folder, location) else ""
    links = links or ("a file of several names (hard links)" if file.stat().st_nlink > 1 else "")
    if links:
        raise ModelError(f"{path}: weight {weight} lies in {location}, which is {links}; copy the file itself beside the model")
    if not os.access(file, os.R_OK):
        raise ModelError(f"{path}: weight {weight} lies in {location}, which cannot be read; allow it")
    return file


def _has_link(folder: Path, location: str) -> bool:
    place = folder
    for part in Path(location).parts:
        place /= part
        if place.is_symlink():
            return True
    return False


def _read(path: Path, tensor: TensorProto, place: Place, file: Path) -> int:
    """Bytes of ``file`` that ``tensor`` takes."""
    size, needed = file.stat().st_size, bytes_of(tensor)
    taken = place.length if place.length is not None else needed if needed is not None else size - place.offset
    if place.offset + taken > size or (needed is not None and taken != needed):
        raise ModelError(
            f"{path}: weight {tensor.name} {list(tensor.dims)} takes {needed if needed is not None else taken:,} bytes, expected "
            f"them at {place.offset:,} of {place.location}, which has {size:,}; copy it beside the model again"
        )
    return taken


def bytes_of(tensor: TensorProto) -> int | None:
    """Bytes of the numbers of a tensor; None where its type has none, or less than a byte a number."""
    if min(tensor.dims, default=0) < 0 or tensor.data_type not in helper.get_all_tensor_dtypes():
        return None
    if tensor.data_type in PACKED:
        return None
    return int(prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


PACKED = (
    TensorProto.STRING, TensorProto.UNDEFINED,
    *(number for name, number in TensorProto.DataType.items() if name.endswith(("INT4", "INT2", "E2M1"))),
)  # fmt: skip
"""Types whose numbers are not of whole bytes."""


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The weights of a graph: initializers and tensor attributes, also in the bodies of If and Loop."""
    yield from graph.initializer
    yield from _in_attributes(graph.node)


def _in_attributes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for body in (attribute.g, *attribute.graphs):
            yield from tensors(body)
