"""ONNX Runtime's constant folding and fusions at level BASIC, which emits standard operators only."""

from __future__ import annotations

from pathlib import Path

import onnx

from kcompiler.passes.normalising.context import Context
from kcompiler.runtime.errors import MachineError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inference.sessions import onnxruntime
from kcompiler.runtime.scratch import ELSEWHERE

INLINE_BYTES = 1024
"""Tensors below this size (shapes, scalars) stay in the proto, where shape inference reads them; others go to a file."""


def fold_by_runtime(model: onnx.ModelProto, weights: Path, context: Context, name: str = "folded") -> onnx.ModelProto:
    """The folded model. External weights are read from the folder ``weights``, and written to the context's as ``name``.bin.

    Raises:
        the context's fault: ONNX Runtime cannot load the model.
        MachineError: it can, but not write the folded one.
    """
    folded = context.folder / f"{name}.onnx"
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    entries = {
        "session.model_external_initializers_file_folder_path": str(weights.resolve()),
        "session.optimized_model_external_initializers_file_name": f"{name}.bin",
        "session.optimized_model_external_initializers_min_size_in_bytes": str(INLINE_BYTES),
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)

    def failed(why: str) -> Exception:
        if str(context.folder) in why and "writ" in why:
            return MachineError(f"{folded}: a temporary file cannot be written by ONNX Runtime; free space, or {ELSEWHERE}")
        return context.fault(f"{context.path}: ONNX Runtime cannot load it: {why}")

    with foreign(failed):
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folded, load_external_data=False)
