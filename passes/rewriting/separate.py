"""Separates an incremental graph in two: what depends on where the patches lie alone, and what reads activations.

The first, the *index graph*, is integer arithmetic, most of the nodes. Its outputs are the same for every image, so a driver
computes them once for a grid of positions and keeps them on the device. The second has no node that computes a shape or an
index: the shapes of all its values follow from those of its inputs, and no value has to leave the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, shape_inference

from kcompiler.passes.graphs.batch import reads
from kcompiler.passes.rewriting.rewrite import Rewritten
from kcompiler.runtime.bundle.manifest import COLUMNS, INDEX, POSITIONS, ROWS, SHAPE

WHERE = (POSITIONS, ROWS, COLUMNS)
"""The inputs of the index graph."""
READ_BY_HOST: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1,), "Range": (0, 1, 2), "ReduceMax": (1,),
    "ReduceMean": (1,), "ReduceMin": (1,), "ReduceSum": (1,), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4),
    "Split": (1,), "Squeeze": (1,), "Tile": (1,), "TopK": (1,), "Unsqueeze": (1,),
}  # fmt: skip
"""Inputs that ONNX Runtime's CUDA kernels read on the host, by operator: shapes, axes, bounds."""


@dataclass(frozen=True, slots=True)
class Separated:
    """An incremental graph in two.

    Attributes:
        index: inputs ``positions`` int64 [batch, 2], ``class/rows`` int64 [any number] and ``class/columns`` int64 [any number];
            regions have the largest extents at these rows and columns of the patch. Outputs are indices and masks.
        incremental: inputs are the outputs of ``index``, the fill and the cached activations; outputs as the source model.
    """

    index: gs.Graph
    incremental: gs.Graph


def separated(rewritten: Rewritten) -> Separated:
    """Separates a graph that was rewritten with the extents "classes"."""
    graph = rewritten.graph
    where = _values_of_where(graph)
    crossing = dict.fromkeys((*_crossing(graph, where), *(value.name for value in graph.outputs if value.name in where)))
    by_host = {name: any(_read_by_host(*use) for use in _uses(graph, name, where)) for name in crossing}
    new_names = {name: f"{SHAPE if by_host[name] else INDEX}{name}" for name in crossing}
    index = _index_graph(graph, new_names)
    return Separated(index, _without_indices(graph, new_names, {value.name: value for value in index.outputs}))


def _values_of_where(graph: gs.Graph) -> set[str]:
    """Names of the values that depend on where the patches lie, and on no activation."""
    where = {value.name for value in graph.inputs if value.name in WHERE}
    data = {value.name for value in graph.inputs} - where
    for node in graph.nodes:
        names = {value.name for value in reads(node)}
        if names & data:
            data.update(value.name for value in node.outputs)
        elif names & where:
            where.update(value.name for value in node.outputs)
    return where


def _crossing(graph: gs.Graph, where: set[str]) -> Iterator[str]:
    """Names of the values in ``where`` that are read by nodes which read activations, too."""
    for node in graph.nodes:
        if not {value.name for value in node.outputs} <= where:
            yield from (value.name for value in node.inputs if value.name in where)


def _uses(graph: gs.Graph, name: str, where: set[str]) -> Iterator[tuple[gs.Node, int]]:
    for node in graph.nodes:
        if not {value.name for value in node.outputs} <= where:
            yield from ((node, number) for number, value in enumerate(node.inputs) if value.name == name)


def _read_by_host(node: gs.Node, number: int) -> bool:
    return number in READ_BY_HOST.get(node.op, ())


def _index_graph(graph: gs.Graph, new_names: Mapping[str, str]) -> gs.Graph:
    """The nodes that compute the values named in ``new_names``, with their types and shapes."""
    index = graph.copy()
    tensors = index.tensors()
    index.name, index.outputs = "index", [tensors[name] for name in new_names]
    index.inputs = [value for value in index.inputs if value.name in WHERE]
    index.cleanup()
    for name, new_name in new_names.items():
        tensors[name].name = new_name
    inferred = shape_inference.infer_shapes(gs.export_onnx(index, do_type_check=False, ir_version=10), data_prop=True)
    for output, info in zip(index.outputs, inferred.graph.output, strict=True):
        output.dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        output.shape = _shape(output.name, info)
    return index


def _shape(name: str, info: onnx.ValueInfoProto) -> list[int | str]:
    dims = info.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{name}/{axis}" for axis, dim in enumerate(dims)]


def _without_indices(graph: gs.Graph, new_names: Mapping[str, str], types: Mapping[str, gs.Variable]) -> gs.Graph:
    """The nodes that read activations; the values named in ``new_names`` are inputs."""
    rest = graph.copy()
    tensors = rest.tensors()
    rest.inputs = [value for value in rest.inputs if value.name not in WHERE]
    for name, new_name in new_names.items():
        value, typed = tensors[name], types[new_name]
        value.inputs.clear()
        value.name, value.dtype, value.shape = new_name, np.dtype(typed.dtype), list(typed.shape)
        rest.inputs.append(value)
    return rest.cleanup().toposort()
