"""Conversion of old models to an opset that all passes support, with fixes for what the ONNX version converter omits."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, version_converter
from onnx.external_data_helper import uses_external_data

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.normalising.context import Context
from kcompiler.passes.source.load import Source
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.errors import ModelError
from kcompiler.runtime.foreign import foreign

OPSET = 18
"""Models of an older opset are converted to this opset: the first whose reductions take their axes as an input."""
CENTRED_FROM = 11
"""The first opset whose Resize has a coordinate_transformation_mode, by default from the centres of cells."""


def opset_of(model: onnx.ModelProto) -> int:
    """The opset of the standard domain, which has two names."""
    return int(next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")))


def convert(source: Source, model: onnx.ModelProto) -> onnx.ModelProto:
    """Converts to opset 18 if the model's is older. External weights become inputs meanwhile: the converter cannot handle them.

    Raises:
        ModelError: the converter fails.
    """
    graph = model.graph
    for entry in (*graph.node, *model.opset_import):
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    used = {node.domain for node in graph.node} | {""}
    opsets = list({opset.domain: opset for opset in model.opset_import if opset.domain in used}.values())
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
    what, instead = f"{source.path}: opset {version} cannot be converted to {OPSET}", f"export with opset {OPSET} or later"
    with foreign(lambda why: ModelError(f"{what} ({why}); {instead}")):
        model = version_converter.convert_version(model, OPSET)
    image = next(value for value in model.graph.input if value.name == source.image)
    del model.graph.input[:]
    model.graph.input.append(image)
    model.graph.initializer.extend(weights)
    _drop_old_attributes(model.graph)
    return model


def _drop_old_attributes(graph: onnx.GraphProto) -> None:
    """Removes attributes of the older operator that the converter leaves without effect (``value`` of a reflecting Pad)."""
    for node in graph.node:
        if node.domain == "" and onnx.defs.has(node.op_type):
            valid = onnx.defs.get_schema(node.op_type, OPSET).attributes
            for attribute in [attribute for attribute in node.attribute if attribute.name not in valid]:
                node.attribute.remove(attribute)


def corner_resizes(graph: gs.Graph, context: Context) -> bool:
    """Sets the attributes of Resizes from an opset before 11, which scale coordinates from the corner; the converter omits them.

    Requires constant scales. Nearest rounds down along axes that grow, and up along axes that shrink (as ONNX Runtime does: the
    standard did not specify it). Returns whether shapes must be inferred anew.
    """
    if not context.corners:
        return False
    emit = Emitter(graph)
    split = False
    for node in [node for node in graph.nodes if node.op == "Resize"]:
        node.attrs["coordinate_transformation_mode"] = "asymmetric"
        if node.attrs.get("mode", "nearest") != "nearest" or not isinstance(node.inputs[2], gs.Constant):
            continue
        scales = np.asarray(node.inputs[2].values)
        node.attrs["nearest_mode"] = "ceil" if (scales < 1).any() else "floor"
        if (scales < 1).any() and (scales > 1).any():
            _shrink_first(emit, node, scales)
            split = True
    graph.toposort()
    return split


def _shrink_first(emit: Emitter, node: gs.Node, scales: FloatArray) -> None:
    """Splits a Resize that shrinks along one axis and grows along the other into two, since each needs its own rounding mode."""
    target, between = node.outputs[0], gs.Variable(emit.fresh(f"{node.outputs[0].name}/shrunk"), np.float32)
    larger = [between, node.inputs[1], emit.constant(np.maximum(scales, 1))]
    attributes = {**node.attrs, "nearest_mode": "floor"}
    name = emit.fresh(f"{node.name or 'Resize'}/grown")
    node.outputs, node.inputs[2] = [between], emit.constant(np.minimum(scales, 1))
    emit.graph.nodes.append(gs.Node("Resize", name, attributes, larger, [target]))
