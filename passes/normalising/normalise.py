"""Normalising: any exporter's graph becomes one plain form.

Requires a checked source. Ensures: one float32 input, one opset (at least 18), constants and batch normalisations folded,
branches that are known taken, the batch free, all other shapes static where inference can tell, explicit pads, layout noise away
(``canonical``), unique node names, topologically sorted; weights stay on disk and are mapped from there.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from kcompiler.passes.graphs.batch import BatchError, check_independent, subgraphs
from kcompiler.passes.graphs.shapes import has_own_operators, runtime_shapes
from kcompiler.passes.normalising import pads
from kcompiler.passes.normalising.branches import take_known_branches
from kcompiler.passes.normalising.canonical import canonical, free_resizes
from kcompiler.passes.normalising.channels_first import CHANNELS_LAST
from kcompiler.passes.normalising.convert import CENTRED_FROM, convert, corner_resizes, opset_of
from kcompiler.passes.normalising.expand import drop_expands
from kcompiler.passes.normalising.fold import fold
from kcompiler.passes.normalising.integers import check_sums, integer_operators, merge_equal
from kcompiler.passes.normalising.pixel_types import keep_float32
from kcompiler.passes.normalising.retired import REWRITES, replace_retired
from kcompiler.passes.normalising.unblock import unblock
from kcompiler.passes.normalising.unfuse import FUSED, unfuse
from kcompiler.passes.source.bodies import is_read, rename_reads
from kcompiler.passes.source.image_layout import to_channels_first
from kcompiler.passes.source.inputs import bind_inputs, element_type, take_float32
from kcompiler.passes.source.load import Source
from kcompiler.passes.source.outputs import cut
from kcompiler.passes.source.single_image import repeat
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.bundle.manifest import OWN_NAMES, TABLE
from kcompiler.runtime.errors import ModelError
from kcompiler.runtime.inference.sessions import onnxruntime

BATCH = "batch"
NUMPY_BROADCAST = 7
"""The first opset whose arithmetic broadcasts as numpy does."""
ROWS = "/rows"
"""End of the name of an output that is brought into rows because its rank is not known."""
INLINE_BYTES = 1024
"""Tensors below this size (shapes, scalars) stay in the proto, where shape inference sees them; others go to a file."""


def normalise(source: Source, output: str, folder: Path, *, free_batch: bool = True) -> gs.Graph:
    """The source in plain form, with the one output; edits ``source.model`` in place.

    Args:
        source: a checked model.
        output: name of the tensor to keep as the only output.
        folder: scratch space, which must outlive the graph: weights are mapped from a file in it.
        free_batch: whether the graph is to take any number of images; otherwise it takes one.

    Raises:
        BatchError: with a free batch ONNX Runtime cannot load the model, shapes contradict each other, or values are made
            of several images.
        ModelError: the same for one image, or the output does not depend on the image.
    """
    kind = BatchError if free_batch else ModelError
    unblock(source.model, source.path.parent)
    unfuse(source.model, source.path.parent, {**FUSED, **CHANNELS_LAST})
    _set_batch(source, output, free_batch)
    model = _fold(source, source.model, source.path.parent, folder, kind)
    model = _without_retired(_without_known_branches(source, model, folder, kind), folder)
    centred = opset_of(model) >= CENTRED_FROM
    model = integer_operators(convert(source, model), folder, INLINE_BYTES)
    graph = gs.import_onnx(_inferred(source, model, folder, kind))
    if keep_float32(graph, element_type(source)):
        graph = _inferred_anew(source, graph, folder, kind)
    while fold(graph, partial(_values, folder=folder)):
        graph = _inferred_anew(source, graph, folder, kind)
    if drop_expands(graph) | (not centred and corner_resizes(graph)):
        graph = _inferred_anew(source, graph, folder, kind)
    if pads.make_explicit(graph) | free_resizes(graph):
        graph = _inferred_anew(source, graph, folder, kind)
    merge_equal(graph)
    canonical(graph)
    for one in (graph, *subgraphs(graph)):
        _map_weights(one, folder)
        _free_names(one)
    _name_nodes(graph)
    graph.cleanup()
    _check_not_random(source, graph)
    if graph.outputs[0] is graph.inputs[0]:
        raise ModelError(f"{source.path}: output {output} is the image itself; choose another (--output NAME)")
    if isinstance(graph.outputs[0], gs.Constant):
        raise ModelError(f"{source.path}: output {output} does not depend on the image; choose another (--output NAME)")
    if free_batch:
        check_independent(graph)
        check_sums(graph)
    _know_rank(graph, free_batch)
    return graph


def _check_not_random(source: Source, graph: gs.Graph) -> None:
    """A Dropout that trains gives other numbers each time: whatever is found would be noise."""
    for node in graph.nodes:
        training = node.inputs[2] if node.op == "Dropout" and len(node.inputs) > 2 else None
        if isinstance(training, gs.Constant) and bool(np.any(training.values)):
            raise ModelError(
                f"{source.path}: node {node.name} (Dropout) is random in training mode, so that outputs differ from run to run; "
                "export the model in inference mode, or bind the input that switches training on to false"
            )


def _know_rank(graph: gs.Graph, free_batch: bool) -> None:
    """An output of unknown rank, which no valid model may have, becomes a row for each image."""
    (output,) = graph.outputs
    if output.shape is not None:
        return
    rows = gs.Variable(f"{output.name}{ROWS}", output.dtype, [BATCH if free_batch else 1, "numbers"])
    shape = gs.Constant(f"{output.name}/rows_shape", np.array([0 if free_batch else 1, -1], dtype=np.int64))
    graph.nodes.append(gs.Node("Reshape", rows.name, inputs=[output, shape], outputs=[rows]))
    graph.outputs = [rows]


def _inferred_anew(source: Source, graph: gs.Graph, folder: Path, kind: type[ModelError]) -> gs.Graph:
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and tensor is not graph.inputs[0]:
            tensor.shape = None
    return gs.import_onnx(_inferred(source, gs.export_onnx(graph, do_type_check=False), folder, kind))


def _inferred(source: Source, model: onnx.ModelProto, folder: Path, kind: type[ModelError]) -> onnx.ModelProto:
    """``model``, whose weights lie in ``folder``, with shapes: behind operators of ONNX Runtime's own, by its own inference.

    By strict inference, or else by what it leaves out where it finds fault with what ONNX Runtime has accepted.
    """
    if has_own_operators(model):
        known = {value.name for value in model.graph.output}
        del model.graph.value_info[:]
        model.graph.value_info.extend(value for name, value in runtime_shapes(model, folder).items() if name not in known)
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError:  # of a batch of one that is written in, too: whether it is, running several tells
        try:
            inferred = shape_inference.infer_shapes(model, data_prop=True)
        except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
            raise kind(f"{source.path}: shapes contradict each other: {error}") from error
    plain = [value for value in inferred.graph.value_info if value.type.WhichOneof("value") != "optional_type"]
    del inferred.graph.value_info[:]  # graphsurgeon has no optional values
    inferred.graph.value_info.extend(plain)
    return inferred


def _set_batch(source: Source, output: str, free: bool) -> None:
    """Makes the first axis of the image a free batch (hard-coded reshapes follow) or one image, and its others static."""
    graph = source.model.graph
    cut(graph, output)
    image = next(value for value in graph.input if value.name == source.image)
    declared = image.type.tensor_type.shape.dim
    written_in = max(declared[0].dim_value, 0) if declared else 0  # zero and below are how some exporters write "any"
    if source.layout == "NHWC":
        _bring_channels_first(graph, source.image)
    bind_inputs(source)
    take_float32(source)
    image.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, [BATCH if free else 1, *source.shape]))
    del graph.input[:]
    graph.input.append(image)
    del graph.value_info[:]
    source.model.ir_version = max(source.model.ir_version, 8)
    if free:
        _free_reshapes(graph, source.image, written_in or 1)
    if written_in > 1 and not free:
        repeat(graph, source.image, written_in)


def _bring_channels_first(graph: onnx.GraphProto, image: str) -> None:
    """The image comes channels first from now on: what the Transposes to channels first gave is the image itself.

    What else reads it still has it channels last.
    """
    dropped = to_channels_first(graph, image)
    outputs = {node.output[0] for node in dropped}
    for node in dropped:
        graph.node.remove(node)
    if is_read(graph, image):
        rename_reads(graph, image, f"{image}/channels_last")
        graph.node.insert(0, helper.make_node("Transpose", [image], [f"{image}/channels_last"], perm=[0, 2, 3, 1]))
    for output in outputs:
        rename_reads(graph, output, image)
    for value in graph.output:
        if value.name in outputs:
            graph.node.append(helper.make_node("Identity", [image], [value.name]))


def _free_reshapes(graph: onnx.GraphProto, image: str, batch: int) -> None:
    """Reshape of what depends on the image to [batch, ...], the exporter's batch, becomes [0, ...]: keep the first axis."""
    small = [tensor for tensor in graph.initializer if len(tensor.dims) == 1 and not uses_external_data(tensor)]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in small if tensor.data_type == TensorProto.INT64}
    depends = {image}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name in ("value", "value_ints"):
                    constants[node.output[0]] = (
                        numpy_helper.to_array(attribute.t) if attribute.name == "value" else np.array(attribute.ints)
                    )
        if not depends.intersection(node.input):
            continue
        depends.update(node.output)
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = constants[node.input[1]].copy()
        if shape.size > 1 and shape[0] == batch and 0 not in shape:
            shape[0] = 0
            for attribute in [a for a in node.attribute if a.name == "allowzero"]:  # it would take the 0 literally
                node.attribute.remove(attribute)
            name = f"{node.output[0]}/free_shape"
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name


def _fold(
    source: Source, model: onnx.ModelProto, weights: Path, folder: Path, kind: type[ModelError], name: str = "folded"
) -> onnx.ModelProto:
    """ONNX Runtime's own constant folding and fusions of level BASIC, which keeps standard operators.

    Weights in files are read from the folder ``weights``, and left in a file of ``name`` in ``folder``.
    """
    folded = folder / f"{name}.onnx"
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
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a class per status code, with Exception as their only common base
        raise kind(f"{source.path}: ONNX Runtime cannot load it: {error}") from error
    return onnx.load(folded, load_external_data=False)


def _without_known_branches(source: Source, model: onnx.ModelProto, folder: Path, kind: type[ModelError]) -> onnx.ModelProto:
    """The model with each If whose branch is known replaced by that branch; ``model`` itself where there is none.

    Before conversion, which leaves the insides of bodies in the opset that they are in.
    """
    if not any(node.op_type == "If" for node in model.graph.node):
        return model
    graph, found = gs.import_onnx(_inferred(source, model, folder, kind)), False
    while take_known_branches(graph, partial(_values, folder=folder)):
        graph, found = _inferred_anew(source, graph, folder, kind), True
    if not found:
        return model
    taken = gs.export_onnx(graph, do_type_check=False, ir_version=model.ir_version)
    return _fold(source, taken, folder, folder, kind, "branches")


def _without_retired(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model with standard operators for those that the converter to a later opset does not know."""
    if not NUMPY_BROADCAST <= opset_of(model) < CENTRED_FROM or not any(node.op_type in REWRITES for node in model.graph.node):
        return model
    graph = gs.import_onnx(model)
    replace_retired(graph, partial(_values, folder=folder))
    exported: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False, ir_version=model.ir_version)
    return exported


def _map_weights(graph: gs.Graph, folder: Path) -> None:
    """Replaces weights in external files by arrays mapped from them."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and _lies_in_a_file(tensor):
            tensor.values = _values(tensor, folder)
            tensor.data_location = None


def _lies_in_a_file(constant: gs.Constant) -> bool:
    return isinstance(constant._values, gs.ir.tensor.LazyValues) and uses_external_data(constant._values.tensor)


def _values(constant: gs.Constant, folder: Path) -> AnyArray:
    """The numbers of a constant, mapped if they lie in a file."""
    if not _lies_in_a_file(constant):
        return np.asarray(constant.values)
    proto = constant._values.tensor
    info, dtype = ExternalDataInfo(proto), helper.tensor_dtype_to_np_dtype(proto.data_type)
    return np.memmap(folder / info.location, dtype, "r", info.offset or 0, tuple(proto.dims))


def _free_names(graph: gs.Graph) -> None:
    """The names of the bundle's own inputs are left to them."""
    for tensor in (*graph.tensors().values(), *graph.inputs, *graph.outputs):
        if tensor.name in OWN_NAMES or tensor.name.startswith(TABLE):
            tensor.name = f"source/{tensor.name}"


def _name_nodes(graph: gs.Graph) -> None:
    """Every node gets a name of its own: the report speaks of nodes by name."""
    seen: set[str] = set()
    for node in graph.nodes:
        stem, count = node.name or node.op, 1
        node.name = stem
        while node.name in seen:
            node.name, count = f"{stem}_{count}", count + 1
        seen.add(node.name)
