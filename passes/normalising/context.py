"""What normalising passes know of the model beside its graph, and what they are: a graph in, whether shapes changed out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, shape_inference
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from kcompiler.passes.graphs.shapes import has_own_operators, runtime_shapes
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ModelError


@dataclass(frozen=True, slots=True)
class Context:
    """A model that is being normalised.

    Attributes:
        path: of the source, which errors name.
        folder: where the weights lie that are not in the graph.
        fault: the error to raise where shapes contradict each other.
        element: type of the source's image, as in ``TensorProto``.
        corners: whether its Resizes scale coordinates from the corner of the map, as before opset 11.
    """

    path: Path
    folder: Path
    fault: type[ModelError]
    element: int
    corners: bool = False

    def inferred(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """``model`` with shapes: behind operators of ONNX Runtime's own, by its own inference.

        By strict inference, or else by what it leaves out where it finds fault with what ONNX Runtime has accepted.
        """
        if has_own_operators(model):
            known = {value.name for value in model.graph.output}
            del model.graph.value_info[:]
            found = runtime_shapes(model, self.folder).items()
            model.graph.value_info.extend(value for name, value in found if name not in known)
        try:
            inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        except shape_inference.InferenceError:  # of a batch of one that is written in, too: whether it is, running several tells
            try:
                inferred = shape_inference.infer_shapes(model, data_prop=True)
            except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
                raise self.fault(f"{self.path}: shapes contradict each other: {error}") from error
        plain = [value for value in inferred.graph.value_info if value.type.WhichOneof("value") != "optional_type"]
        del inferred.graph.value_info[:]  # graphsurgeon has no optional values
        inferred.graph.value_info.extend(plain)
        return inferred

    def inferred_anew(self, graph: gs.Graph) -> gs.Graph:
        """``graph`` with the shapes of all values but the image inferred again."""
        for tensor in graph.tensors().values():
            if isinstance(tensor, gs.Variable) and tensor is not graph.inputs[0]:
                tensor.shape = None
        return gs.import_onnx(self.inferred(gs.export_onnx(graph, do_type_check=False)))

    def values(self, constant: gs.Constant) -> AnyArray:
        """The numbers of a constant, mapped if they lie in a file."""
        if not _lies_in_a_file(constant):
            return np.asarray(constant.values)
        proto = constant._values.tensor
        info, dtype = ExternalDataInfo(proto), helper.tensor_dtype_to_np_dtype(proto.data_type)
        return np.memmap(self.folder / info.location, dtype, "r", info.offset or 0, tuple(proto.dims))

    def map_weights(self, graph: gs.Graph) -> None:
        """Replaces weights in files by arrays mapped from them."""
        for tensor in graph.tensors().values():
            if isinstance(tensor, gs.Constant) and _lies_in_a_file(tensor):
                tensor.values = self.values(tensor)
                tensor.data_location = None


Pass = Callable[[gs.Graph, Context], bool]
"""Rewrites a topologically sorted graph of inferred shapes, in place; returns whether they must be inferred anew."""


def _lies_in_a_file(constant: gs.Constant) -> bool:
    return isinstance(constant._values, gs.ir.tensor.LazyValues) and uses_external_data(constant._values.tensor)
