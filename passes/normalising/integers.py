"""Integer operators: rewrites a quantised model to the operators that ONNX Runtime runs for it.

For float32 operators between DequantizeLinear and QuantizeLinear, ONNX Runtime runs integer operators. They accumulate in
integers, where the order of summation does not matter; only the final rescaling to the output's scale rounds. Regions must be
computed by the same operators to be bit-identical. So ONNX Runtime itself writes them into the graph, before any other pass:
which operators it fuses depends on all readers of a value.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.batch import BatchError, subgraphs
from kcompiler.passes.graphs.quantised import MICROSOFT, quantised_later
from kcompiler.passes.graphs.shapes import STANDARD
from kcompiler.passes.graphs.values import is_output
from kcompiler.passes.isolation.process import Limits, write_optimised
from kcompiler.passes.normalising.context import Context
from kcompiler.passes.normalising.unfuse import FUSED, unfuse
from kcompiler.runtime.errors import ModelError
from kcompiler.runtime.foreign import ForeignFailure

IN_ANY_ORDER = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTISING = ("QuantizeLinear", "DequantizeLinear")
WRITTEN = "integers.onnx"


def integer_operators(model: onnx.ModelProto, folder: Path, inline_bytes: int) -> onnx.ModelProto:
    """``model`` with the integer operators that ONNX Runtime runs; ``model`` itself if it is not quantised, or has other domains.

    Requires that ONNX Runtime loads it. Ensures the same outputs.

    Raises:
        ModelError: ONNX Runtime cannot load it any more.

    Args:
        model: of standard operators and ONNX Runtime's own.
        folder: contains its external weights, and receives those of the result.
        inline_bytes: weights below this size stay in the proto.
    """
    domains = {node.domain for node in model.graph.node}
    if not any(node.op_type in QUANTISING for node in model.graph.node) or not domains <= {*STANDARD, MICROSOFT}:
        return model
    content = model.SerializeToString()
    limits = Limits.of(len(content) + sum(file.stat().st_size for file in folder.glob("*.bin")))
    # higher levels change layouts
    try:
        write_optimised(content, folder, "ORT_ENABLE_EXTENDED", folder / WRITTEN, inline_bytes, limits)
    except ForeignFailure as error:
        raise ModelError(f"ONNX Runtime cannot load the model with integer operators: {error}") from error
    written = onnx.load(folder / WRITTEN, load_external_data=False)
    unfuse(written, folder, FUSED)
    _drop_stale_types(written)
    used = {node.domain for node in written.graph.node} | {""}
    opsets = [opset for opset in written.opset_import if opset.domain in used]
    del written.opset_import[:]
    written.opset_import.extend(opsets)
    return written


def _drop_stale_types(model: onnx.ModelProto) -> None:
    """Removes ``output_dtype``, which ONNX Runtime may leave stale when it changes the type of the zero point."""
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2]:
            for attribute in [attribute for attribute in node.attribute if attribute.name == "output_dtype"]:
                node.attribute.remove(attribute)


def merge_equal(graph: gs.Graph, context: Context) -> bool:
    """Merges equal DequantizeLinear nodes: ONNX Runtime writes one for each reader of a value. Changes no shapes.

    A graph with bodies (If, Loop) is unchanged, since it runs whole.
    """
    if any(subgraphs(graph)):
        return False
    merged: dict[tuple[int, ...], gs.Tensor] = {}
    for node in graph.nodes:
        if node.op != "DequantizeLinear" or is_output(graph, node.outputs[0]):
            continue
        first = merged.setdefault(tuple(id(value) for value in node.inputs), node.outputs[0])
        for reader in list(node.outputs[0].outputs) if first is not node.outputs[0] else []:
            reader.inputs = [first if value is node.outputs[0] else value for value in reader.inputs]
    graph.cleanup()
    return False


def check_sums(graph: gs.Graph) -> None:
    """Checks that no float32 sum is quantised, so that quantised values do not depend on the batch size.

    The order of ONNX Runtime's float32 sums depends on the number of images and threads. Quantised models have such sums with
    signed activations on x86, behind values with two readers, and in layers that were excluded from quantisation.

    Raises:
        BatchError: a float32 sum is quantised.
    """
    quantisers = quantised_later(graph)
    for node in graph.nodes:
        name = quantisers.get(node.outputs[0].name) if node.op in IN_ANY_ORDER else None
        if name is not None:
            raise BatchError(
                f"node {node.name} ({node.op}) sums in float32 what {name} (QuantizeLinear) rounds to steps; sums of several "
                "images at once, or of regions, are taken in another order, which may tip a step; images run one by one "
                "(quantise all layers, with unsigned activations)"
            )
