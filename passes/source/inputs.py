"""A single float32 input: other inputs become initializers with their bound values, and the image is cast to the source's type.

Edits ``source.model`` in place. Requires an NCHW image.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from kcompiler.passes.source.bodies import is_read, rename_reads, unused
from kcompiler.passes.source.load import ELEMENTS, Source
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.bundle.manifest import Bound
from kcompiler.runtime.inputs.elements import FLOAT32

FEW = 64
"""Elements of a bound value up to which a manifest lists them."""


def bind_inputs(source: Source) -> None:
    """Adds bound values as initializers, in place of defaults of these inputs."""
    graph = source.model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in source.bound]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in source.bound.items())


def take_float32(source: Source) -> None:
    """Makes the image input float32, and inserts a Cast to the source's element type in front of all readers."""
    graph, image = source.model.graph, source.image
    if source.element == FLOAT32 or not is_read(graph, image):
        return
    typed = unused(graph, f"{image}/{source.element.name}")
    rename_reads(graph, image, typed)
    graph.node.insert(0, helper.make_node("Cast", [image], [typed], to=element_type(source)))


def element_type(source: Source) -> int:
    """Element type of the source's image, as in ``TensorProto``."""
    return next(kind for kind, name in ELEMENTS.items() if name == source.element.name)


def bound_record(array: AnyArray) -> Bound:
    """The manifest's record of a bound value."""
    content = json.dumps(array.tolist()).encode() if array.dtype == object else array.tobytes()
    few = array.size <= FEW and (array.dtype.kind != "f" or bool(np.isfinite(array).all()))
    return Bound(
        type=TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(array.dtype)),
        shape=array.shape,
        values=tuple(array.ravel().tolist()) if few else None,
        sha256=hashlib.sha256(content).hexdigest(),
    )
