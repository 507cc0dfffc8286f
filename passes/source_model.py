"""The source file as it was given, run by ONNX Runtime on images: what every number is compared with in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_model

from kcompiler.passes.load import Source
from kcompiler.runtime.images import FloatArray
from kcompiler.runtime.sessions import Machine, onnxruntime, open_session

CPU = Machine(("cpu",))


class SourceModel:
    """A session on the source, fed with images in its own type and layout, and with the values its other inputs are bound to.

    Attributes:
        batch: how many images it takes, the same one each time: as many as the file says, or one.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._session = open_session(_runnable(source), CPU)
        self.batch = 1
        self._feeds: dict[str, Any] = {}
        for value in self._session.get_inputs():
            if value.name == source.image and value.shape and isinstance(value.shape[0], int):
                self.batch = max(value.shape[0], 1)
            elif value.name in source.unread:
                self._feeds[value.name] = source.unread[value.name]
        self._feeds |= source.bound

    def __call__(self, image: FloatArray, output: str) -> npt.NDArray[np.generic]:
        """``output`` for an image [C, H, W] of numbers that the source's type has: as the source gives it."""
        laid_out = image if self._source.layout == "NCHW" else image.transpose(1, 2, 0)
        given = self._source.element.given(np.ascontiguousarray(np.repeat(laid_out[None], self.batch, axis=0)))
        if self._source.element.name != "bfloat16":
            return np.asarray(self._session.run([output], {self._source.image: given, **self._feeds})[0])
        make = onnxruntime().OrtValue
        feeds = {name: make.ortvalue_from_numpy(array) for name, array in self._feeds.items()}
        feeds[self._source.image] = make.ortvalue_from_numpy_with_onnx_type(given, TensorProto.BFLOAT16)
        return np.asarray(self._session.run_with_ort_values([output], feeds)[0].numpy())


def _runnable(source: Source) -> Path | bytes:
    """The file; where it says that its image has no pixels, which some exporters write for "any", the same without that."""
    if not source.empty:
        return source.path
    model = onnx.load(source.path, format="protobuf", load_external_data=False)  # the source's own is edited on the way
    load_external_data_for_model(model, str(source.path.parent))
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if value.name == source.image and not dim.dim_value:
                dim.ClearField("dim_value")
    return bytes(model.SerializeToString())
