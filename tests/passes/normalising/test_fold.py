"""What is known becomes constant, and changes no bit: by ONNX Runtime, before and after, for batches of several sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnxruntime import InferenceSession

from kcompiler.passes.normalising.context import Context
from kcompiler.passes.normalising.fold import BATCHES, RESTATED, fold, fold_known
from kcompiler.passes.normalising.fold_by_runtime import INLINE_BYTES, fold_by_runtime
from kcompiler.runtime.errors import ModelError

SIZES = (1, 2, 3, 4, 9, 70)
"""Of batches that are run; of some of them, nothing was computed."""


def model_of(nodes: str, image: str = "float[N,3,4,5]", weights: str = "") -> onnx.ModelProto:
    return parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
        folded ({image} image) => (out)
        <int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}, int64 ten = {{10}}, float half = {{0.5}},
         int64[1] first = {{0}}, int64[1] second = {{1}} {weights}>
        {{ {nodes} }}
    """)


def imported(model: onnx.ModelProto) -> gs.Graph:
    return gs.import_onnx(onnx.shape_inference.infer_shapes(model, data_prop=True)).toposort()


def values(constant: gs.Constant) -> np.ndarray:
    return np.asarray(constant.values)


def exported(graph: gs.Graph) -> onnx.ModelProto:
    return gs.export_onnx(graph, do_type_check=False, ir_version=8)


def outputs(model: onnx.ModelProto, size: tuple[int, ...] = (3, 4, 5)) -> list[np.ndarray]:
    """Of batches of all SIZES."""
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((max(SIZES), *size)).astype(np.float32)
    return [session.run(None, {"image": images[:count]})[0] for count in SIZES]


def folded(model: onnx.ModelProto) -> gs.Graph:
    """Folded until nothing more is found, shapes inferred anew each time; compared with what it was."""
    graph, rounds = imported(model), 0
    while fold_known(graph, values):
        graph, rounds = imported(exported(graph)), rounds + 1
        assert rounds < 10, "what was folded is found again"
    for found, expected in zip(outputs(exported(graph)), outputs(model), strict=True):
        np.testing.assert_array_equal(found, expected)
    return graph


BATCH = "s = Shape (image) n = Gather (s, zero)"
HEIGHT = "s = Shape (image) h = Gather (s, two)"
GONE = {
    "constants": "a = Constant <value = float[1] {2.0}> () b = Add (a, a) y = Exp (b)",
    "the height": f"{HEIGHT} y = Cast <to = 1> (h)",
    "a part of the shape": "s = Shape <start = 2> (image) f = Cast <to = 1> (s) y = ReduceMax (f)",
    "the end of the shape": "s = Shape <start = -3, end = -1> (image) f = Cast <to = 1> (s) y = ReduceMax (f)",
    "how many numbers a constant has": "n = Size (second) y = Cast <to = 1> (n)",
    "a batch less itself": f"{BATCH} z = Sub (n, n) y = Cast <to = 1> (z)",
    "the least of a batch and one": f"{BATCH} z = Min (n, one) y = Cast <to = 1> (z)",
    "an image's share of a batch": f"{BATCH} m = Size (image) z = Div (m, n) y = Cast <to = 1> (z)",
    "numbers up to the height": f"{HEIGHT} r = Range (zero, h, one) f = Cast <to = 1> (r) y = ReduceMax (f)",
    "an input that is left out": "a = Constant <value = float[2] {2.0, -7.0}> () c = Clip (a, , half) y = ReduceMin (c)",
    "integers of one axis": "q = Constant <value = int8[2] {1, -3}> () w = DequantizeLinear (q, half) y = ReduceMin (w)",
}
"""What ``y`` is made by, by which the image is multiplied: nothing of it is left."""
KEPT = {
    "the batch": (f"{BATCH} y = Cast <to = 1> (n)", ["Shape", "Gather", "Cast"]),
    "how many numbers a batch has": ("n = Size (image) y = Cast <to = 1> (n)", ["Size", "Cast"]),
    "a batch of ten at most": (f"{BATCH} z = Min (n, ten) y = Cast <to = 1> (z)", ["Shape", "Gather", "Min", "Cast"]),
    "numbers up to the batch": (
        f"{BATCH} r = Range (zero, n, one) f = Cast <to = 1> (r) y = ReduceMax (f)",
        ["Shape", "Gather", "Range", "Cast", "ReduceMax"],
    ),
    "integers of two axes": (
        "q = Constant <value = int8[1,3] {1, -2, 3}> () w = DequantizeLinear (q, half) y = ReduceSum (w)",
        ["DequantizeLinear", "ReduceSum"],
    ),
    "another domain's": ("a = Constant <value = float[1] {2.0}> () y = com.microsoft.Gelu (a)", ["Gelu"]),
    "several outputs": ("a = Constant <value = float[2] {2.0, 3.0}> () b, y = Split <num_outputs = 2> (a)", ["Split"]),
    "the image's": ("y = Exp (image)", ["Exp"]),
}
"""The same, with the operators that stay."""


def times(nodes: str) -> str:
    return f"{nodes} out = Mul (image, y)"


@pytest.mark.parametrize("name", [*GONE, *KEPT])
def test_what_is_the_same_for_every_batch_becomes_constant(name):
    """And nothing else does, however often it is tried."""
    nodes, left = KEPT.get(name, (GONE.get(name), []))
    assert [node.op for node in folded(model_of(times(nodes))).nodes] == [*left, "Mul"]


@pytest.mark.parametrize(("axis", "known"), [("zero", False), ("one", True), ("two", False)])
def test_sizes_that_are_open_are_not_known(axis, known):
    """Nor are they taken for those of the batch, or for one another."""
    model = model_of(times(f"s = Shape (image) h = Gather (s, {axis}) y = Cast <to = 1> (h)"), "float[N,3,H,W]")
    assert ([node.op for node in folded(model).nodes] == ["Mul"]) == known


@pytest.mark.parametrize("other", ["one", "two"])
def test_sizes_of_one_name_that_is_not_the_batch_s_are_drawn_for_each(other):
    """So that what is made of two of them is not taken for constant, though it may be."""
    nodes = f"{BATCH} h = Gather (s, {other}) d = Sub (h, n) y = Cast <to = 1> (d)"
    model = model_of(times(nodes), "float[N,M,M,5]")
    assert "Sub" in [node.op for node in folded_once(model).nodes]


def folded_once(model: onnx.ModelProto) -> gs.Graph:
    graph = imported(model)
    fold_known(graph, values)
    return graph


def test_whether_anything_was_found_is_said():
    graph = imported(model_of(times(GONE["constants"])))
    assert fold_known(graph, values)
    assert not fold_known(graph, values)
    assert not fold_known(imported(model_of(times(KEPT["the batch"][0]))), values)


def test_what_onnx_runtime_does_not_run_stays():
    """Three numbers are no two."""
    nodes = "a = Constant <value = float[3] {1.0, 2.0, 3.0}> () b = Reshape (a, pair) y = ReduceSum (b)"
    graph = folded_once(model_of(times(nodes), weights=", int64[1] pair = {2}"))
    assert [node.op for node in graph.nodes] == ["Reshape", "ReduceSum", "Mul"]


RESHAPED = {
    "Reshape": "u = Concat <axis = 0> (n, hw, c) t = Max (u, first) out = Reshape (image, t)",
    "Expand": "u = Concat <axis = 0> (n, c, hw) t = Max (u, first) out = Expand (half, t)",
    "ConstantOfShape": "u = Concat <axis = 0> (n, c, hw) t = Max (u, first) out = ConstantOfShape (t)",
}


@pytest.mark.parametrize("name", RESHAPED)
def test_sizes_that_follow_from_the_batch_are_said_so_that_shapes_are_known(name):
    """Once: the batch, then numbers. Shape inference does not know what the larger of numbers is."""
    sizes = (
        "s = Shape (image) n = Slice (s, first, second) c = Slice (s, second, start_h) "
        "h = Slice (s, start_h, start_w) w = Slice (s, start_w, end) hw = Mul (h, w)"
    )
    weights = ", int64[1] start_h = {2}, int64[1] start_w = {3}, int64[1] end = {4}"
    model = model_of(f"{sizes} {RESHAPED[name]}", weights=weights)
    assert not all(isinstance(size, int) for size in imported(model).outputs[0].shape[1:]), "not known before"
    graph = folded(model)
    (node,) = (node for node in graph.nodes if node.op == name)
    said = node.inputs[0 if name == "ConstantOfShape" else 1].inputs[0]
    assert said.name.startswith(RESTATED)
    (batch,) = said.inputs[0].inputs
    assert (batch.op, batch.inputs[0].name, batch.attrs["start"], batch.attrs["end"]) == ("Shape", "image", 0, 1)
    numbers = [int(values(number).item()) for number in said.inputs[1:]]
    assert numbers == ([20, 3] if name == "Reshape" else [3, 20])
    assert list(graph.outputs[0].shape)[1:] == numbers


def test_sizes_that_are_several_times_the_batch_are_left_as_they_are():
    """They are neither the batch nor a number."""
    model = model_of("s = Shape (image) b = Slice (s, first, second) r = Mul (b, t) u = Concat <axis = 0> (r, rest) "
                     "out = Reshape (image, u)", weights=", int64[1] t = {3}, int64[1] rest = {20}")  # fmt: skip
    assert not any(node.name.startswith(RESTATED) for node in folded(model).nodes)


def test_batches_for_which_is_computed_tell_the_usual_formulas_apart():
    """Of two formulas that are not the same, some batch has other numbers."""
    formulas = [lambda n: n, lambda n: 2 * n, lambda n: n // 2, lambda n: -(-n // 2), lambda n: n % 2, lambda n: min(n, 8),
                lambda n: max(n, 2), lambda n: n * n, lambda n: n + 1, lambda n: 1]  # fmt: skip
    found = [tuple(formula(n) for n in BATCHES) for formula in formulas]
    assert len(set(found)) == len(found)
    assert sum(len(set(one)) == 1 for one in found) == 1


def with_body() -> onnx.ModelProto:
    """An If that reads a value from around it, which is made of constants."""
    branches = []
    for op in ("Mul", "Add"):
        twice = helper.make_node("Add", ["half", "half"], ["whole"])
        nodes = [twice, helper.make_node(op, ["image", "whole"], ["out"])]
        branches.append(helper.make_graph(nodes, op, [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]))
    nodes = [
        helper.make_node("Exp", ["log"], ["half"]),
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "log"], ["condition"]),
        helper.make_node("If", ["condition"], ["chosen"], then_branch=branches[0], else_branch=branches[1]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 4, 5])
    output = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [image], [output], [numpy_helper.from_array(np.float32(0.7), "log")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_what_bodies_read_becomes_constant_and_they_stay():
    graph = folded(with_body())
    assert [node.op for node in graph.nodes] == ["ReduceMax", "Greater", "If"]
    assert [[node.op for node in graph.nodes[-1].attrs[f"{name}_branch"].nodes] for name in ("then", "else")] == [
        ["Add", "Mul"], ["Add", "Add"],
    ]  # fmt: skip


def context_in(folder: Path) -> Context:
    return Context(folder / "given.onnx", folder, ModelError, TensorProto.FLOAT)


def test_graphs_with_bodies_are_not_folded_as_a_whole(tmp_path):
    graph = imported(with_body())
    assert not fold(graph, context_in(tmp_path))
    assert [node.op for node in graph.nodes] == ["Exp", "ReduceMax", "Greater", "If"]


def with_weights(name: str = "w") -> onnx.ModelProto:
    """A convolution by weights that are made of two constants, a large one and a small one; and a constant that is added."""
    rng = np.random.default_rng(0)
    large, small = rng.standard_normal((8, 3, 3, 5)).astype(np.float32), np.float32([0.5])
    nodes = [
        helper.make_node("Mul", [name, "half"], ["weights"], "times"),
        helper.make_node("Conv", ["image", "weights"], ["x"], "conv"),
        helper.make_node("Identity", ["x"], ["same"], "nothing"),
        helper.make_node("Add", ["half", "half"], ["whole"], "sum"),
        helper.make_node("Sub", ["same", "whole"], ["out"], "last"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 4, 5])
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 8, 2, 1])
    arrays = [numpy_helper.from_array(large, name), numpy_helper.from_array(small, "half")]
    graph = helper.make_graph(nodes, "g", [image], [output], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def with_weights_in_a_file(folder: Path) -> onnx.ModelProto:
    """The same, with the large constant in a file of the folder."""
    onnx.save(with_weights(), folder / "given.onnx", save_as_external_data=True, location="w.bin", size_threshold=100)
    return onnx.load(folder / "given.onnx", load_external_data=False)


def test_weights_are_read_from_their_file(tmp_path):
    graph, context = imported(with_weights_in_a_file(tmp_path)), context_in(tmp_path)
    assert fold(graph, context)
    context.map_weights(graph)
    assert [node.op for node in graph.nodes] == ["Conv", "Identity", "Sub"]
    for found, expected in zip(outputs(exported(graph)), outputs(with_weights()), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_onnx_runtime_folds_and_leaves_large_weights_in_a_file(tmp_path):
    """Beside those that it read; what is small stays in the model, where shapes are inferred from it."""
    (tmp_path / "source").mkdir()
    (tmp_path / "scratch").mkdir()
    model = with_weights_in_a_file(tmp_path / "source")
    before = sorted((tmp_path / "source").iterdir())
    found = fold_by_runtime(model, tmp_path / "source", context_in(tmp_path / "scratch"), "name")
    assert sorted((tmp_path / "source").iterdir()) == before
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == ["name.bin", "name.onnx"]
    assert [node.op_type for node in found.graph.node] == ["Conv", "Sub"]
    assert {node.domain for node in found.graph.node} <= {"", "ai.onnx"}
    for tensor in found.graph.initializer:
        outside = tensor.data_location == TensorProto.EXTERNAL
        assert outside == (4 * np.prod(tensor.dims) >= INLINE_BYTES), tensor.name
    assert any(tensor.data_location == TensorProto.EXTERNAL for tensor in found.graph.initializer)
    whole = onnx.load(tmp_path / "scratch" / "name.onnx")
    for one, expected in zip(outputs(whole), outputs(with_weights()), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-6, atol=1e-6)


def test_what_onnx_runtime_cannot_load_is_the_context_s_fault(tmp_path):
    model = with_weights()
    model.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(ModelError, match=r"given\.onnx: ONNX Runtime cannot load it: .*Frobnicate"):
        fold_by_runtime(model, tmp_path, context_in(tmp_path))
