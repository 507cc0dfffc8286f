"""The unmodified source file, run by ONNX Runtime in a process of its own: the reference of all comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from kcompiler.passes.isolation.process import Limits, run
from kcompiler.passes.source.load import Source
from kcompiler.passes.source.source_inputs import IMAGE_AXES, dims
from kcompiler.runtime.arrays import AnyArray, FloatArray

ON_ONE_THREAD = 8 << 20
"""Bytes of a model and its weights up to which it runs on one thread."""


class SourceModel:
    """Outputs of the source file, fed with images in its own type and layout, and with bound values for its other inputs.

    Attributes:
        batch: the batch size of the file, or 1 if that is free; an image is repeated to fill it.
    """

    def __init__(self, source: Source, tensor: str) -> None:
        """For ``tensor`` of the source, which need not be a graph output."""
        self._source, self._tensor = source, tensor
        model = _reloaded(source)
        image = next(value for value in model.graph.input if value.name == source.image)
        sizes = dims(image)
        self._alone = len(sizes) == IMAGE_AXES - 1
        self.batch = sizes[0] if sizes and not self._alone and isinstance(sizes[0], int) else 1
        self._nodes = len(model.graph.node)
        self._model = _runnable(source, model, image, tensor)
        read = {value.name for value in model.graph.input}
        self._feeds: dict[str, Any] = {name: array for name, array in source.unread.items() if name in read}
        self._feeds |= source.bound

    def __call__(self, images: FloatArray) -> list[AnyArray]:
        """The tensor for each of ``images`` [N, C, H, W], of values that the source's type represents, in its type and shape.

        Raises:
            ForeignFailure: ONNX Runtime cannot run it, or not within the limits of its size.
        """
        source = self._source
        limits = Limits.of(source.size).running(images.size * self.batch, self._nodes)
        runs = [{source.image: self._typed(image), **self._feeds} for image in images]
        kinds = (source.image,) if source.element.name == "bfloat16" else ()
        found = run(
            self._model, runs, limits, names=[self._tensor], weights=source.path.parent, bfloat16=kinds,
            threads=1 if source.size <= ON_ONE_THREAD else 0,
        )  # fmt: skip
        return [np.asarray(values[0]) for values in found]

    def _typed(self, image: FloatArray) -> AnyArray:
        laid_out = image if self._source.layout == "NCHW" else image.transpose(1, 2, 0)
        images = laid_out if self._alone else np.repeat(laid_out[None], self.batch, axis=0)
        return self._source.element.given(np.ascontiguousarray(images))


def _runnable(source: Source, model: onnx.ModelProto, image: onnx.ValueInfoProto, tensor: str) -> bytes | Path:
    """The file, or the content of a modified copy.

    A copy is needed where ``tensor`` is no output, to add it, and where the image has sizes of 0, which some exporters write for
    "any" and the copy leaves open.
    """
    outputs = {value.name for value in model.graph.output}
    zero_sizes = [dim for dim in image.type.tensor_type.shape.dim if dim.HasField("dim_value") and not dim.dim_value]
    if tensor in outputs and not zero_sizes:
        return source.path
    for dim in zero_sizes:
        dim.ClearField("dim_value")
    if tensor not in outputs:
        model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    content: bytes = model.SerializeToString()
    return content


def _reloaded(source: Source) -> onnx.ModelProto:
    """The model as in the file; ``source.model`` is edited by normalisation."""
    return onnx.load(source.path, format="protobuf", load_external_data=False)
