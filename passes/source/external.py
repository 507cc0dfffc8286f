"""External weight files of a model: they must lie in its folder, and must not be links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from kcompiler.runtime.errors import ModelError


def external_files(path: Path, model: onnx.ModelProto) -> list[Path]:
    """The external weight files of the model at ``path``, sorted by name.

    Raises:
        ModelError: a file is missing, lies outside the model's folder, or is a link, which could expose any file.
    """
    folder = path.parent.resolve()
    files = set()
    for tensor in (*tensors(model.graph), *(value for function in model.functions for value in _in_attributes(function.node))):
        if uses_external_data(tensor):
            files.add(_checked(path, folder, tensor.name, ExternalDataInfo(tensor).location))
    return sorted(files)


def _checked(path: Path, folder: Path, weight: str, location: str) -> Path:
    file = (folder / location).resolve()
    if not file.is_relative_to(folder):
        raise ModelError(f"{path}: weight {weight} lies outside the model's folder ({file}); keep weights beside the model")
    if not file.is_file():
        raise ModelError(f"{path}: weight {weight} is missing, its file {file} does not exist; copy it beside the model")
    links = "a symbolic link" if folder / location != file and _has_link(folder, location) else ""
    links = links or ("a file of several names (hard links)" if file.stat().st_nlink > 1 else "")
    if links:
        raise ModelError(f"{path}: weight {weight} lies in {location}, which is {links}; copy the file itself beside the model")
    return file


def _has_link(folder: Path, location: str) -> bool:
    place = folder
    for part in Path(location).parts:
        place /= part
        if place.is_symlink():
            return True
    return False


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The weights of a graph: initializers and tensor attributes, also in the bodies of If and Loop."""
    yield from graph.initializer
    yield from _in_attributes(graph.node)


def _in_attributes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for body in (attribute.g, *attribute.graphs):
            yield from tensors(body)
