"""One input of float32: the other inputs become the constants that they are bound to, and the image is cast to its own type.

Edits ``source.model`` in place. Requires an image that has its channels first.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from kcompiler.passes.source.bodies import is_read, rename_reads
from kcompiler.passes.source.load import ELEMENTS, Source
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.bundle.manifest import Bound
from kcompiler.runtime.inputs.elements import FLOAT32

FEW = 64
"""Numbers that a manifest tells one by one."""


def bind_inputs(source: Source) -> None:
    """Makes initialisers of what inputs are bound to, in place of their defaults if they have any."""
    graph = source.model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in source.bound]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in source.bound.items())


def take_float32(source: Source) -> None:
    """A float32 image from now on: a cast to its own type stands before all that reads it."""
    graph, image = source.model.graph, source.image
    if source.element == FLOAT32 or not is_read(graph, image):
        return
    typed = f"{image}/{source.element.name}"
    rename_reads(graph, image, typed)
    graph.node.insert(0, helper.make_node("Cast", [image], [typed], to=element_type(source)))


def element_type(source: Source) -> int:
    """Type of the source's image, as in ``TensorProto``."""
    return next(kind for kind, name in ELEMENTS.items() if name == source.element.name)


def bound_record(array: AnyArray) -> Bound:
    """What a manifest says of a value."""
    content = json.dumps(array.tolist()).encode() if array.dtype == object else array.tobytes()
    few = array.size <= FEW and (array.dtype.kind != "f" or bool(np.isfinite(array).all()))
    return Bound(
        type=TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(array.dtype)),
        shape=array.shape,
        values=tuple(array.ravel().tolist()) if few else None,
        sha256=hashlib.sha256(content).hexdigest(),
    )
