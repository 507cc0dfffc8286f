"""Integer operators: a quantised model as ONNX Runtime computes it.

Between QuantizeLinear and DequantizeLinear a file may have operators on float32, for which ONNX Runtime runs operators on
integers. These sum in integers, so that no order of sums matters, and only what they do last, to bring a sum to the output's
scale, rounds. To give the same bits regions must be computed by these very operators; so they are put into the graph before
regions are planned, by ONNX Runtime itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from kcompiler.passes.batch import BatchError
from kcompiler.passes.canonical import canonical
from kcompiler.passes.normalise import INLINE_BYTES, map_weights, name_nodes
from kcompiler.passes.quantised import quantised_behind
from kcompiler.passes.shapes import STANDARD, runtime_shapes
from kcompiler.passes.store import WeightsFile, write_model
from kcompiler.passes.unfuse import FUSED, MICROSOFT, unfuse
from kcompiler.runtime.sessions import onnxruntime

IN_ANY_ORDER = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTISING = ("QuantizeLinear", "DequantizeLinear")
FOLDER, EXPORTED, WRITTEN, WEIGHTS = "integers", "exported.onnx", "written.onnx", "written.bin"


def integer_operators(graph: gs.Graph, scratch: Path) -> gs.Graph:
    """``graph`` (normalised) with operators on integers where ONNX Runtime runs those; itself if it is not quantised.

    Requires operators of the standard and of ONNX Runtime's own domain only. Ensures the same outputs under the same names,
    shapes as far as ONNX Runtime knows them, unique node names, layout noise away (``canonical``).

    Args:
        scratch: a folder that must outlive the graph: weights are mapped from a file in it.

    Raises:
        BatchError: outputs of an image would depend on how many are in a batch.
    """
    if not any(node.op in QUANTISING for node in graph.nodes):
        return graph
    if not all((node.domain or "") in (*STANDARD, MICROSOFT) for node in graph.nodes):
        return graph
    folder = scratch / FOLDER
    folder.mkdir(exist_ok=True)
    with WeightsFile(folder) as weights:
        write_model(graph, folder / EXPORTED, weights)
    model = _written(folder)
    unfuse(model, folder, FUSED)
    _drop_stale_types(model)
    used = {node.domain for node in model.graph.node} | {""}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    shapes = runtime_shapes(model, folder)
    outputs = {value.name for value in model.graph.output}
    del model.graph.value_info[:]
    model.graph.value_info.extend(value for name, value in shapes.items() if name not in outputs)
    result = gs.import_onnx(model)
    map_weights(result, folder)
    name_nodes(result)
    _merge_equal(result)
    for output, before in zip(result.outputs, graph.outputs, strict=True):
        output.dtype, output.shape = before.dtype, before.shape
    result.cleanup().toposort()
    canonical(result)
    _check_sums(result)
    return result.toposort()


def _check_sums(graph: gs.Graph) -> None:
    """What is rounded to steps must be the same for an image in a batch as for it alone.

    ONNX Runtime takes float32 sums in another order where there are more images or threads; signed activations on x86 have some,
    behind values that two operators read, and networks whose first layers were left out when they were quantised.

    Raises:
        BatchError: it need not be.
    """
    for node in graph.nodes:
        summed = node.op in IN_ANY_ORDER and node.outputs[0].dtype == np.float32
        if summed and (behind := quantised_behind(node.outputs[0])):
            raise BatchError(
                f"node {node.name} ({node.op}) sums in float32 what {behind.name} (QuantizeLinear) rounds to steps; sums of "
                "several images at once, or of regions, are taken in another order, which may tip a step; images run one by one "
                "(quantise all layers, with unsigned activations)"
            )


def _merge_equal(graph: gs.Graph) -> None:
    """ONNX Runtime makes a DequantizeLinear for each reader of a value; here all read one."""
    known: dict[tuple[int, ...], gs.Tensor] = {}
    for node in graph.nodes:
        if node.op != "DequantizeLinear" or any(node.outputs[0] is output for output in graph.outputs):
            continue
        first = known.setdefault(tuple(id(value) for value in node.inputs), node.outputs[0])
        for reader in list(node.outputs[0].outputs) if first is not node.outputs[0] else []:
            reader.inputs = [first if value is node.outputs[0] else value for value in reader.inputs]


def _drop_stale_types(model: onnx.ModelProto) -> None:
    """ONNX Runtime may change a zero point's type and leave the attribute that says it again as it was."""
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2]:
            for attribute in [one for one in node.attribute if one.name == "output_dtype"]:
                node.attribute.remove(attribute)


def _written(folder: Path) -> onnx.ModelProto:
    """What ONNX Runtime writes of the exported model after fusing, before it chooses layouts for this machine."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / WRITTEN)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", str(INLINE_BYTES))
    ort.InferenceSession(str(folder / EXPORTED), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / WRITTEN, load_external_data=False)
