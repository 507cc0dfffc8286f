"""The source file as it was given, run by ONNX Runtime on images: what every number is compared with in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from kcompiler.passes.source.load import Source
from kcompiler.passes.source.source_inputs import IMAGE_AXES
from kcompiler.runtime.arrays import AnyArray, FloatArray
from kcompiler.runtime.inference.sessions import Machine, onnxruntime, open_session

if TYPE_CHECKING:
    import onnxruntime as ort

CPU = Machine(("cpu",))


class SourceModel:
    """A session on the source, fed with images in its own type and layout, and with the values its other inputs are bound to.

    Attributes:
        batch: how many images it takes, the same one each time: as many as the file says, or one.
    """

    def __init__(self, source: Source, tensor: str) -> None:
        """For ``tensor`` of the source, an output or not."""
        self._source = source
        self._session = _opened(source, tensor)
        self.batch, self._alone = 1, False
        self._feeds: dict[str, Any] = {}
        for value in self._session.get_inputs():
            if value.name == source.image:
                self._alone = len(value.shape) == IMAGE_AXES - 1
                batch = value.shape[0] if value.shape and not self._alone else 1
                self.batch = max(batch, 1) if isinstance(batch, int) else 1
            elif value.name in source.unread:
                self._feeds[value.name] = source.unread[value.name]
        self._feeds |= source.bound

    def __call__(self, image: FloatArray, output: str) -> AnyArray:
        """``output`` for an image [C, H, W] of numbers that the source's type has: as the source gives it."""
        laid_out = image if self._source.layout == "NCHW" else image.transpose(1, 2, 0)
        images = laid_out if self._alone else np.repeat(laid_out[None], self.batch, axis=0)
        given = self._source.element.given(np.ascontiguousarray(images))
        if self._source.element.name != "bfloat16":
            return np.asarray(self._session.run([output], {self._source.image: given, **self._feeds})[0])
        make = onnxruntime().OrtValue
        feeds = {name: make.ortvalue_from_numpy(array) for name, array in self._feeds.items()}
        feeds[self._source.image] = make.ortvalue_from_numpy_with_onnx_type(given, TensorProto.BFLOAT16)
        return np.asarray(self._session.run_with_ort_values([output], feeds)[0].numpy())


def _opened(source: Source, tensor: str) -> ort.InferenceSession:
    """On the file. On a copy of it where ``tensor`` is no output, which is then a further one.

    And where the file says that its image has no pixels, which some exporters write for "any", as the copy does not.
    """
    model = _given(source)
    outputs = {value.name for value in model.graph.output}
    image = next(value for value in model.graph.input if value.name == source.image)
    nothing = [dim for dim in image.type.tensor_type.shape.dim if dim.HasField("dim_value") and not dim.dim_value]
    if tensor in outputs and not nothing:
        return open_session(source.path, CPU)
    for dim in nothing:
        dim.ClearField("dim_value")
    if tensor not in outputs:
        model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return open_session(model.SerializeToString(), CPU, weights=source.path.parent)


def _given(source: Source) -> onnx.ModelProto:
    """As in the file: the source's own proto is edited on the way."""
    return onnx.load(source.path, format="protobuf", load_external_data=False)
