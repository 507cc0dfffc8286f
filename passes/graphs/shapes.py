"""Shape inference by ONNX Runtime, for its own operators, which ONNX shape inference does not support."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from kcompiler.runtime.foreign import ForeignFailure, foreign
from kcompiler.runtime.inference.sessions import onnxruntime

STANDARD = ("", "ai.onnx")
TYPES = {f"tensor({TensorProto.DataType.Name(number).lower()})": number for number in TensorProto.DataType.values()}
TYPES["tensor(float)"] = TensorProto.FLOAT
"""Element types by ONNX Runtime's names for them."""


def has_own_operators(model: onnx.ModelProto) -> bool:
    """Whether any operator is not standard ONNX."""
    return any(node.domain not in STANDARD for node in model.graph.node)


def runtime_shapes(model: onnx.ModelProto, folder: Path) -> Mapping[str, onnx.ValueInfoProto]:
    """Type and shape of all node outputs of ``model`` that ONNX Runtime infers, by name. Nothing is run.

    ``folder`` contains the files of its external weights. Empty where ONNX Runtime cannot load the model.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    output_names = {value.name for value in copy.graph.output}
    names = {name for node in copy.graph.node for name in node.output if name} - output_names
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in sorted(names))
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in (("model_external_initializers_file_folder_path", str(folder.resolve())), ("disable_prepacking", "1")):
        options.add_session_config_entry(f"session.{key}", value)
    try:
        with foreign():
            session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ForeignFailure:  # callers handle missing shapes
        return {}
    return {
        output.name: helper.make_tensor_value_info(output.name, TYPES[output.type], output.shape)
        for output in session.get_outputs()
        if output.type in TYPES and output.shape is not None
    }
