"""Integer operators: a quantised model as ONNX Runtime computes it.

Between QuantizeLinear and DequantizeLinear a file may have operators on float32, for which ONNX Runtime runs operators on
integers. These sum in integers, so that no order of sums matters, and only what they do last, to bring a sum to the output's
scale, rounds. To give the same bits regions must be computed by these very operators; so they are put into the graph, by ONNX
Runtime itself, and before anything else is changed: which operators it fuses depends on all that reads a value.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import BatchError, subgraphs
from kcompiler.passes.graphs.quantised import MICROSOFT, quantised_later
from kcompiler.passes.graphs.shapes import STANDARD
from kcompiler.passes.graphs.values import is_output
from kcompiler.passes.normalising.context import Context
from kcompiler.passes.normalising.unfuse import FUSED, unfuse
from kcompiler.runtime.inference.sessions import onnxruntime

IN_ANY_ORDER = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTISING = ("QuantizeLinear", "DequantizeLinear")
WRITTEN, WEIGHTS = "integers.onnx", "integers.bin"


def integer_operators(model: onnx.ModelProto, folder: Path, inline_bytes: int) -> onnx.ModelProto:
    """``model`` with operators on integers where ONNX Runtime runs those; itself if it is not quantised.

    Requires operators of the standard and of ONNX Runtime's own domain only, and loads in ONNX Runtime. Ensures the same outputs.

    Args:
        folder: has its external weights, and gets those of the result that take more than ``inline_bytes``.
    """
    domains = {node.domain for node in model.graph.node}
    if not any(node.op_type in QUANTISING for node in model.graph.node) or not domains <= {*STANDARD, MICROSOFT}:
        return model
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # further levels choose layouts
    options.optimized_model_filepath = str(folder / WRITTEN)
    entries = {
        "session.model_external_initializers_file_folder_path": str(folder.resolve()),
        "session.optimized_model_external_initializers_file_name": WEIGHTS,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(inline_bytes),
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    written = onnx.load(folder / WRITTEN, load_external_data=False)
    unfuse(written, folder, FUSED)
    _drop_stale_types(written)
    used = {node.domain for node in written.graph.node} | {""}
    opsets = [opset for opset in written.opset_import if opset.domain in used]
    del written.opset_import[:]
    written.opset_import.extend(opsets)
    return written


def _drop_stale_types(model: onnx.ModelProto) -> None:
    """ONNX Runtime may change a zero point's type and leave the attribute that says it again as it was."""
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2]:
            for attribute in [one for one in node.attribute if one.name == "output_dtype"]:
                node.attribute.remove(attribute)


def merge_equal(graph: gs.Graph, context: Context) -> bool:
    """ONNX Runtime makes a DequantizeLinear for each reader of a value; from now on all read one. Changes no shapes.

    A graph with bodies (If, Loop) runs whole anyway, and stays as it is.
    """
    if any(subgraphs(graph)):
        return False
    known: dict[tuple[int, ...], gs.Tensor] = {}
    for node in graph.nodes:
        if node.op != "DequantizeLinear" or is_output(graph, node.outputs[0]):
            continue
        first = known.setdefault(tuple(id(value) for value in node.inputs), node.outputs[0])
        for reader in list(node.outputs[0].outputs) if first is not node.outputs[0] else []:
            reader.inputs = [first if value is node.outputs[0] else value for value in reader.inputs]
    graph.cleanup()
    return False


def check_sums(graph: gs.Graph) -> None:
    """What is rounded to steps must be the same for an image in a batch as for it alone.

    ONNX Runtime takes float32 sums in another order where there are more images or threads; signed activations on x86 have some,
    behind values that two operators read, and networks whose first layers were left out when they were quantised.

    Raises:
        BatchError: it need not be.
    """
    behind = quantised_later(graph)
    for node in graph.nodes:
        name = behind.get(node.outputs[0].name) if node.op in IN_ANY_ORDER else None
        if name is not None:
            raise BatchError(
                f"node {node.name} ({node.op}) sums in float32 what {name} (QuantizeLinear) rounds to steps; sums of several "
                "images at once, or of regions, are taken in another order, which may tip a step; images run one by one "
                "(quantise all layers, with unsigned activations)"
            )
