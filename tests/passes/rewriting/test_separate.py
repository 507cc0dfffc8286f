"""Graphs for devices, proven without one: what is launched, that shapes are known before, that nothing leaves the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from cuda_graphs import BATCH, Compiled, compiled, indices, launched, network, proto
from networks import NETWORKS, save
from onnx import numpy_helper
from source_file import NEVER_DENSE
from stacks import asked_by, stack

from kcompiler.passes.graphs.batch import SHAPE_ONLY
from kcompiler.passes.rewriting.rewrite import Rewritten
from kcompiler.passes.rewriting.separate import READ_BY_HOST, separated
from kcompiler.runtime.bundle.manifest import COLUMNS, INDEX, POSITIONS, ROWS, SHAPE, TABLE

pytest.importorskip("torch", reason="exports need PyTorch")

LAUNCHES = {"demo": 70, "resnet18": 240, "vgg16": 180, "inception_v3": 420, "mobilenet_v2": 180}
"""Most kernels in a batch, those that ONNX Runtime fuses counted separately."""
SLOW = ("vgg16", "inception_v3")
NAMED = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in LAUNCHES]


def tiny(name: str, folder: Path) -> Compiled:
    return compiled(save(name, folder / "model.onnx", 20, 24), folder, (4, 6), NEVER_DENSE)


def with_known_inputs(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model as a session meets it: inputs with the shapes of ``values``, and shapes, which the host reads, as constants."""
    graph = model.graph
    for value in list(graph.input):
        if value.name.startswith(SHAPE):
            graph.initializer.append(numpy_helper.from_array(values[value.name], value.name))
            graph.input.remove(value)
        elif value.name in values:
            for dim, size in zip(value.type.tensor_type.shape.dim, values[value.name].shape, strict=True):
                dim.dim_value = size
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    """Sizes by value; a name or nothing where a size is not known."""
    return {
        value.name: [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }


@pytest.mark.parametrize("name", NAMED)
def test_few_kernels_are_launched(name):
    assert sum(launched(network(name).parts.incremental).values()) <= LAUNCHES[name]


@pytest.mark.parametrize("name", NAMED)
def test_every_node_has_a_kernel_on_cuda(name):
    given = network(name)
    for model in (given.baseline, proto(given.parts.incremental)):
        for asked in asked_by(model):
            assert stack("cuda").has(asked), str(asked)


def test_a_node_without_a_kernel_would_be_found():
    assert not any(stack("cuda").kernels.get(operator) for operator in ("DynamicQuantizeLinear", "ConvInteger"))


@pytest.mark.parametrize("name", [*NAMED, *NETWORKS])
def test_all_shapes_follow_from_those_of_the_inputs(name, tmp_path):
    given = network(name) if name in LAUNCHES else tiny(name, tmp_path)
    for number in range(len(given.classes)):
        known = shapes(with_known_inputs(proto(given.parts.incremental), indices(given, number)))
        made = {value.name for node in given.parts.incremental.nodes for value in node.outputs if not value.is_empty()}
        assert made <= known.keys()
        for value, sizes in known.items():
            assert all(isinstance(size, int) for size in sizes), f"{value} {sizes}"


@pytest.mark.parametrize("name", [*NAMED, *NETWORKS])
def test_nothing_that_the_device_computes_is_read_by_the_host(name, tmp_path):
    """Shapes, axes and bounds are constants or inputs, and no node takes the shape of a value."""
    given = network(name) if name in LAUNCHES else tiny(name, tmp_path)
    graph = given.parts.incremental
    for node in graph.nodes:
        assert node.op not in SHAPE_ONLY
        for number in READ_BY_HOST.get(node.op, ()):
            value = node.inputs[number] if number < len(node.inputs) else gs.Variable.empty()
            known = isinstance(value, gs.Constant) or value.is_empty() or value.name.startswith(SHAPE)
            assert known, f"{node.name} reads {value.name} on the host"


def test_what_depends_on_positions_is_computed_before(tmp_path):
    given = tiny("residual", tmp_path)
    names = {value.name for value in given.parts.incremental.inputs}
    assert names.isdisjoint({POSITIONS, ROWS, COLUMNS})
    assert {value.name for value in given.parts.index.inputs} == {POSITIONS, ROWS, COLUMNS}
    assert {value.name for value in given.parts.index.outputs} == {name for name in names if name.startswith((INDEX, SHAPE))}
    assert {name for name in names if name.startswith(TABLE)} == {TABLE + name for name in given.analysed.rewritten.cached}


def test_a_value_that_host_and_device_read_is_given_to_each():
    """A shape that is also multiplied with: it would otherwise have to lie in both memories."""
    positions = gs.Variable(POSITIONS, np.int64, ["batch", 2])
    table = gs.Variable(f"{TABLE}x", np.float32, [6, 2])
    count, doubled, rows, output = (gs.Variable(name) for name in ("count", "doubled", "rows", "y"))
    zero = gs.Constant("zero", np.zeros(1, np.int64))
    nodes = [
        gs.Node("ReduceMax", "count", {"keepdims": 0}, [positions, zero], [count]),
        gs.Node("Reshape", "rows", {}, [table, count], [rows]),
        gs.Node("Cast", "doubled", {"to": 1}, [count], [doubled]),
        gs.Node("Mul", "y", {}, [rows, doubled], [output]),
    ]
    output.dtype = np.dtype(np.float32)
    graph = gs.Graph(nodes, [positions, table], [output], opset=20)
    parts = separated(Rewritten(graph, ("x",)))
    assert [value.name for value in parts.index.outputs] == [f"{SHAPE}count", f"{INDEX}doubled"]
    assert [node.op for node in parts.incremental.nodes] == ["Reshape", "Mul"]


@pytest.mark.parametrize("name", NAMED)
def test_indices_of_a_map_fit_the_device(name):
    """As many bytes a position as docs/how-it-works.md says, at most."""
    values = indices(network(name), len(network(name).classes) - 1)
    assert sum(value.nbytes for value in values.values()) / BATCH < 100_000
