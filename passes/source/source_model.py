"""The unmodified source file in an ONNX Runtime session: the reference of all comparisons."""

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
    """A session on the source file, fed with images in its own type and layout, and with bound values for its other inputs.

    Attributes:
        batch: the batch size of the file, or 1 if that is free; an image is repeated to fill it.
    """

    def __init__(self, source: Source, tensor: str) -> None:
        """For ``tensor`` of the source, which need not be a graph output."""
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
        """``output``, in the source's type and shape, for an image [C, H, W] of values that the source's type represents."""
        laid_out = image if self._source.layout == "NCHW" else image.transpose(1, 2, 0)
        images = laid_out if self._alone else np.repeat(laid_out[None], self.batch, axis=0)
        typed = self._source.element.given(np.ascontiguousarray(images))
        if self._source.element.name != "bfloat16":
            return np.asarray(self._session.run([output], {self._source.image: typed, **self._feeds})[0])
        ort_value = onnxruntime().OrtValue
        feeds = {name: ort_value.ortvalue_from_numpy(array) for name, array in self._feeds.items()}
        feeds[self._source.image] = ort_value.ortvalue_from_numpy_with_onnx_type(typed, TensorProto.BFLOAT16)
        return np.asarray(self._session.run_with_ort_values([output], feeds)[0].numpy())


def _opened(source: Source, tensor: str) -> ort.InferenceSession:
    """A session on the file, or on a modified copy.

    A copy is needed where ``tensor`` is no output, to add it, and where the image has sizes of 0, which some exporters write for
    "any" and the copy leaves open.
    """
    model = _reloaded(source)
    outputs = {value.name for value in model.graph.output}
    image = next(value for value in model.graph.input if value.name == source.image)
    zero_sizes = [dim for dim in image.type.tensor_type.shape.dim if dim.HasField("dim_value") and not dim.dim_value]
    if tensor in outputs and not zero_sizes:
        return open_session(source.path, CPU)
    for dim in zero_sizes:
        dim.ClearField("dim_value")
    if tensor not in outputs:
        model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return open_session(model.SerializeToString(), CPU, weights=source.path.parent)


def _reloaded(source: Source) -> onnx.ModelProto:
    """The model as in the file; ``source.model`` is edited by normalisation."""
    return onnx.load(source.path, format="protobuf", load_external_data=False)
