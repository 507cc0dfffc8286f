"""ONNX Runtime's constant folding and fusions at level BASIC, which emits standard operators only; in a process of its own."""

from __future__ import annotations

from pathlib import Path

import onnx

from kcompiler.passes.isolation.process import Limits, write_optimised
from kcompiler.passes.normalising.context import Context
from kcompiler.runtime.errors import MachineError
from kcompiler.runtime.foreign import ForeignFailure
from kcompiler.runtime.scratch import ELSEWHERE

INLINE_BYTES = 1024
"""Tensors below this size (shapes, scalars) stay in the proto, where shape inference reads them; others go to a file."""


def fold_by_runtime(model: onnx.ModelProto, weights: Path, context: Context, name: str = "folded") -> onnx.ModelProto:
    """The folded model. External weights are read from the folder ``weights``, and written to the context's as ``name``.bin.

    Raises:
        the context's fault: ONNX Runtime cannot load the model, or not within the limits of its size.
        MachineError: it can, but not write the folded one.
    """
    folded = context.folder / f"{name}.onnx"
    content = model.SerializeToString()
    try:
        write_optimised(content, weights, "ORT_ENABLE_BASIC", folded, INLINE_BYTES, Limits.of(len(content) + context.external))
    except ForeignFailure as error:
        if str(context.folder) in str(error) and "writ" in str(error):
            raise MachineError(
                f"{folded}: a temporary file cannot be written by ONNX Runtime; free space, or {ELSEWHERE}"
            ) from error
        raise context.fault(f"{context.path}: ONNX Runtime cannot load it: {error}") from error
    return onnx.load(folded, load_external_data=False)
