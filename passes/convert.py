"""Old models: conversion to an opset that all passes know."""

from __future__ import annotations

import onnx
from onnx import helper, version_converter
from onnx.external_data_helper import uses_external_data

from kcompiler.passes.load import Source
from kcompiler.runtime.errors import ModelError

OPSET = 18
"""Models of an older opset are converted to this one: the first whose reductions take their axes as an input."""


def opset_of(model: onnx.ModelProto) -> int:
    """Of the standard domain, which has two spellings."""
    return int(next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")))


def convert(source: Source, model: onnx.ModelProto) -> onnx.ModelProto:
    """To opset 18 if the model's is older. Weights travel as inputs meanwhile: the converter cannot carry external data.

    Raises:
        ModelError: the converter cannot.
    """
    graph = model.graph
    for entry in (*graph.node, *model.opset_import):
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    used = {node.domain for node in graph.node} | {""}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.ir_version = 10
    if (version := opset_of(model)) >= OPSET:
        return model
    weights = [tensor for tensor in graph.initializer if uses_external_data(tensor)]
    small = [tensor for tensor in graph.initializer if not uses_external_data(tensor)]
    del graph.initializer[:]
    graph.initializer.extend(small)
    graph.input.extend(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in weights)
    try:
        model = version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError without a common base
        raise ModelError(
            f"{source.path}: opset {version} cannot be converted to {OPSET} ({error}); export with opset {OPSET} or later"
        ) from error
    image = next(value for value in model.graph.input if value.name == source.image)
    del model.graph.input[:]
    model.graph.input.append(image)
    model.graph.initializer.extend(weights)
    return model
