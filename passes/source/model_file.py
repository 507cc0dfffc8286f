"""Saves a model in memory to a file."""

from __future__ import annotations

from pathlib import Path

import onnx

EXTERNAL_BYTES = 1 << 30
"""Size from which a proto is saved with external weights; protos cannot exceed 2 GB."""


def as_file(model: str | Path | onnx.ModelProto, scratch: Path) -> Path:
    """The model as a file: ``model`` itself, or the proto saved into ``scratch``."""
    if isinstance(model, onnx.ModelProto):
        path = scratch / "model.onnx"
        if model.ByteSize() < EXTERNAL_BYTES:
            onnx.save(model, path)
        else:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)  # saving with external data removes the weights from the proto
            onnx.save(copy, path, save_as_external_data=True, location="model.bin")
        return path
    return Path(model)
