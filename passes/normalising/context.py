"""The context of normalisation passes (paths, weights, shape inference), and the type of a pass."""

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
    """Facts on the model that is being normalised, beside its graph.

    Attributes:
        path: of the source, for error messages.
        folder: of the external weights.
        fault: the error to raise where ONNX Runtime rejects the model, or shapes contradict each other.
        element: element type of the source's image, as in ``TensorProto``.
        corners: whether its Resizes scale coordinates from the corner of the map, as before opset 11.
        external: bytes of the source's external weights.
    """

    path: Path
    folder: Path
    fault: type[ModelError]
    element: int
    corners: bool = False
    external: int = 0

    def inferred(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """``model`` with inferred shapes, those of ONNX Runtime's own operators by ONNX Runtime.

        Inference is strict first. Where that rejects a model that ONNX Runtime accepts, it is lenient: some shapes stay unknown.
        """
        if has_own_operators(model):
            output_names = {value.name for value in model.graph.output}
            del model.graph.value_info[:]
            shapes = runtime_shapes(model, self.folder).items()
            model.graph.value_info.extend(value for name, value in shapes if name not in output_names)
        try:
            inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        except shape_inference.InferenceError:  # also due to a constant batch size of 1, which running a batch will reveal
            try:
                inferred = shape_inference.infer_shapes(model, data_prop=True)
            except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
                raise self.fault(f"{self.path}: shapes contradict each other: {error}") from error
        plain = [value for value in inferred.graph.value_info if value.type.WhichOneof("value") != "optional_type"]
        del inferred.graph.value_info[:]  # graphsurgeon has no optional values
        inferred.graph.value_info.extend(plain)
        return inferred

    def inferred_anew(self, graph: gs.Graph) -> gs.Graph:
        """``graph`` with the shapes of all values but the image inferred anew."""
        for tensor in graph.tensors().values():
            if isinstance(tensor, gs.Variable) and tensor is not graph.inputs[0]:
                tensor.shape = None
        return gs.import_onnx(self.inferred(gs.export_onnx(graph, do_type_check=False)))

    def values(self, constant: gs.Constant) -> AnyArray:
        """The values of a constant, memory-mapped if they are stored in an external file."""
        if not _is_external(constant):
            return np.asarray(constant.values)
        proto = constant._values.tensor
        info, dtype = ExternalDataInfo(proto), helper.tensor_dtype_to_np_dtype(proto.data_type)
        return np.memmap(self.folder / info.location, dtype, "r", info.offset or 0, tuple(proto.dims))

    def map_weights(self, graph: gs.Graph) -> None:
        """Replaces external weights by arrays that are memory-mapped from their files."""
        for tensor in graph.tensors().values():
            if isinstance(tensor, gs.Constant) and _is_external(tensor):
                tensor.values = self.values(tensor)
                tensor.data_location = None


Pass = Callable[[gs.Graph, Context], bool]
"""Rewrites a topologically sorted graph with inferred shapes in place; returns whether shapes must be inferred anew."""


def _is_external(constant: gs.Constant) -> bool:
    return isinstance(constant._values, gs.ir.tensor.LazyValues) and uses_external_data(constant._values.tensor)
