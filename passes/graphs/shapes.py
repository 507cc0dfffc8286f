"""Shapes by ONNX Runtime's own inference, which knows its own operators; ONNX has none for those."""

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
"""Element types by their names in ONNX Runtime."""


def has_own_operators(model: onnx.ModelProto) -> bool:
    """Whether there are operators that are not standard."""
    return any(node.domain not in STANDARD for node in model.graph.node)


def runtime_shapes(model: onnx.ModelProto, folder: Path) -> Mapping[str, onnx.ValueInfoProto]:
    """Type and shape of what the nodes of ``model`` put out, by name, as far as ONNX Runtime can tell; nothing is run.

    ``folder`` has the files of its external weights. Empty where ONNX Runtime cannot load it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    names = {name for node in copy.graph.node for name in node.output if name} - known
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
    except ForeignFailure:  # who needs the shapes says what it means not to have them
        return {}
    return {
        one.name: helper.make_tensor_value_info(one.name, TYPES[one.type], one.shape)
        for one in session.get_outputs()
        if one.type in TYPES and one.shape is not None
    }
