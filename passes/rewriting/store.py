"""Writes the models of a bundle so that they share one file of external weights, of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from kcompiler.passes import assumed
from kcompiler.passes.graphs.batch import subgraphs
from kcompiler.runtime.bundle.manifest import WEIGHTS
from kcompiler.runtime.bundle.stored import StoredWeight

INLINE_BYTES = 1024


class WeightsFile:
    """The weights of all models of a bundle, each stored once."""

    def __init__(self, folder: Path) -> None:
        self._stream = (folder / WEIGHTS).open("wb")
        self._places: dict[tuple[str, bytes], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()

    def flush(self) -> None:
        self._stream.flush()

    def mark(self) -> int:
        """The current end of the file, to :meth:`rewind` to."""
        return self._stream.tell()

    def rewind(self, mark: int) -> None:
        """Truncates the file to ``mark``, and forgets the arrays stored since."""
        self._stream.seek(mark)
        self._stream.truncate()
        self._places = {key: place for key, place in self._places.items() if place < mark}

    def add(self, values: np.ndarray) -> tuple[int, int]:
        """Stores ``values`` unless equal content is stored already; returns (offset, length) in bytes."""
        data = np.ascontiguousarray(values)
        key = (str(data.dtype), hashlib.sha256(data.data).digest())
        if key not in self._places:
            self._stream.write(b"\0" * (-self._stream.tell() % assumed.ALIGNMENT))
            self._places[key] = self._stream.tell()
            self._stream.write(data.data)
        return self._places[key], data.nbytes


def write_model(
    graph: gs.Graph, path: Path, weights: WeightsFile, metadata: Mapping[str, str] | None = None
) -> dict[str, StoredWeight]:
    """Writes ``graph`` to ``path``, its weights to the shared file beside it, and runs the ONNX checker on the result.

    Returns:
        the weights in that file, by name.
    """
    constants = {  # by identity: the bodies of If and Loop share constants of the enclosing graph
        id(tensor): tensor
        for scope in (graph, *subgraphs(graph))
        for tensor in scope.tensors().values()
        if isinstance(tensor, gs.Constant)
    }
    replaced, stored = [], {}
    try:
        for tensor in constants.values():
            values = tensor.values
            if values.nbytes >= _inline(values.dtype):
                replaced.append((tensor, values))
                offset, length = weights.add(values)
                stored[tensor.name] = StoredWeight(str(values.dtype), tuple(values.shape), offset)
                tensor.values = LazyValues(external_tensor("", values, offset, length))
        model = gs.export_onnx(graph, do_type_check=False, ir_version=10)
    finally:
        for tensor, values in replaced:
            tensor.values = values
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    weights.flush()
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)
    return stored


def _inline(dtype: np.dtype) -> int:
    """Bytes below which constants stay in the model."""
    return assumed.TABLE_BYTES if dtype in (np.int32, np.int64) else INLINE_BYTES


def external_tensor(name: str, values: np.ndarray, offset: int, length: int) -> TensorProto:
    """A tensor whose ``length`` bytes lie at ``offset`` of the bundle's file of weights."""
    proto = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
        proto.external_data.add(key=key, value=str(value))
    return proto
