"""Any exporter's graph becomes one plain form that gives the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import NETWORKS, Builder, save
from onnx import helper, numpy_helper
from source_file import assert_equals_source, run_file

import kcompiler
from kcompiler.passes.normalising.convert import OPSET
from kcompiler.passes.normalising.normalise import normalise
from kcompiler.passes.source.load import load
from kcompiler.runtime.errors import ModelError
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import check


def assert_compiles_exactly(path):
    """The source as exported is compared with the compiled model at every position, and with the normalised one in batches."""
    bundle = assert_equals_source(path, patch=(4, 4))
    images = np.random.default_rng(0).standard_normal((3, 3, 20, 20), dtype=np.float32)
    full = kcompiler.load(bundle).full_inference().run(images)
    np.testing.assert_allclose(full, run_file(path, images), rtol=1e-4, atol=1e-5)
    return bundle


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21, 23])
@pytest.mark.parametrize("name", ["residual", "concat", "pre_activation"])
def test_opsets(name, opset, tmp_path):
    path = save(name, tmp_path / "model.onnx", opset=opset)
    assert_compiles_exactly(path)
    graph = normalise(source := load(path), source.model.graph.output[0].name, tmp_path)
    assert graph.opset == max(opset, OPSET)


def test_batch_norm_behind_a_convolution_is_folded(tmp_path):
    builder = Builder()
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.relu(builder.batch_norm(builder.conv("image", 4))), 20, 20), path)
    bundle = assert_compiles_exactly(path)
    assert "BatchNormalization" in bundle.report.source_operators
    assert "BatchNormalization" not in bundle.report.normalised_operators


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_batch_becomes_free(batch, tmp_path):
    path = save("chain", tmp_path / "model.onnx", batch=batch)
    bundle = kcompiler.compile(path, patch=4)
    images = np.random.default_rng(0).standard_normal((5, 3, 20, 20), dtype=np.float32)
    assert kcompiler.load(bundle).full_inference().run(images).shape == (5, 5)


@pytest.mark.parametrize("allowzero", [0, 1])
@pytest.mark.parametrize("shape", [[1, -1], [1, 600], [-1, 600], [0, -1]])
def test_batch_written_into_a_reshape(shape, allowzero, tmp_path):
    if allowzero and 0 in shape:
        pytest.skip("a literal zero beside -1 is no shape")
    builder = Builder()
    x = builder.node("Reshape", builder.conv("image", 6, 11), builder.constant(shape, np.int64), allowzero=allowzero)
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(x, 20, 20), path)
    assert_compiles_exactly(path)


def test_shape_computed_in_the_graph(tmp_path):
    """Shape -> Gather -> Concat -> Reshape, as older torch exporters flatten."""
    builder = Builder()
    x = builder.conv("image", 6, 11)
    first = builder.node("Gather", builder.node("Shape", x), builder.constant(0, np.int64), axis=0)
    shape = builder.node(
        "Concat", builder.node("Unsqueeze", first, builder.constant([0], np.int64)), builder.constant([-1], np.int64), axis=0
    )
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.node("Reshape", x, shape), 20, 20), path)
    assert_compiles_exactly(path)


def test_weights_shared_through_identities_are_stored_once(tmp_path):
    builder = Builder()
    weights = builder.weight(8, 3, 5, 5)
    x = builder.node("Conv", "image", weights, channels=8)
    y = builder.node("Conv", "image", builder.node("Identity", weights), channels=8)
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.node("Add", x, y), 20, 20, classes=3), path)
    bundle = assert_compiles_exactly(path)
    gemm = 8 * 16 * 16 * 3 * 4
    assert (bundle.folder / "weights.bin").stat().st_size < 8 * 3 * 25 * 4 + gemm + 3 * 4096


def one_by_one(path):
    """Compiles a model that cannot take batches: exact all the same, and the report says why it is slow."""
    bundle = assert_compiles_exactly(path)
    assert bundle.manifest.largest_batch == 1
    assert not any(node.incremental for node in bundle.report.nodes)
    explainer = kcompiler.load(bundle, providers=["cpu"])
    assert check(explainer, make_grid((20, 20), (4, 4), 3).positions).agrees
    return bundle.report.nodes[0].reason


def test_model_that_mixes_the_images_of_a_batch_runs_one_by_one(tmp_path):
    builder = Builder()
    x = builder.node("ReduceMax", builder.conv("image", 4), builder.constant([0], np.int64), keepdims=1)
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.node("Sub", builder.conv("image", 4), x), 20, 20), path)
    assert "first axis is not the batch" in one_by_one(path)


def test_model_that_looks_at_the_whole_batch_in_secret_runs_one_by_one(tmp_path):
    """Random images never show it: what decides is the largest pixel of the batch."""
    builder = Builder()
    largest = builder.node("ReduceMax", "image", keepdims=0)
    scaled = builder.node("Div", "image", builder.constant(255.0))
    image = builder.node("Where", builder.node("Greater", largest, builder.constant(9.0)), scaled, "image", channels=3)
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.conv(image, 4), 20, 20), path)
    one_by_one(path)


def test_batch_squeezed_away_runs_one_by_one(tmp_path):
    builder = Builder()
    flat = builder.node("Reshape", builder.conv("image", 6, 11), builder.constant([600], np.int64))
    scores = builder.node("MatMul", flat, builder.weight(600, 5))
    image = helper.make_tensor_value_info("image", 1, [1, 3, 20, 20])
    graph = helper.make_graph(builder.nodes, "g", [image], [helper.make_tensor_value_info(scores, 1, [5])], builder.weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    bundle = kcompiler.compile(path, patch=4)
    assert bundle.manifest.largest_batch == 1
    explainer = kcompiler.load(bundle)
    assert explainer.outputs(np.zeros((3, 20, 20), np.float32), [[0, 0], [3, 4]]).shape == (2, 5)
    assert check(explainer, make_grid((20, 20), (4, 4), 3).positions).agrees


def test_class_token_of_one_image_is_repeated_for_a_batch(tmp_path):
    """Concat with a constant of batch 1, as vision transformers have it."""
    builder = Builder()
    tokens = builder.node("Reshape", builder.conv("image", 6, 5, strides=[5, 5]), builder.constant([1, 6, 16], np.int64))
    tokens = builder.node("Concat", tokens, builder.weight(1, 6, 1), axis=2, channels=6)
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.relu(tokens), 20, 20), path)
    assert assert_compiles_exactly(path).manifest.largest_batch > 1


def test_reshape_of_a_constant_is_left_alone(tmp_path):
    builder = Builder()
    scale = builder.node("Reshape", builder.weight(4), builder.constant([1, 4, 1, 1], np.int64))
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.node("Mul", builder.conv("image", 4), scale), 20, 20), path)
    assert any(node.incremental for node in assert_compiles_exactly(path).report.nodes)


@pytest.mark.parametrize("body", ["If", "Loop"])
def test_nodes_with_bodies_run_dense(body, tmp_path):
    """Bodies read values from around them, and carry weights of their own."""
    builder = Builder()
    x = builder.conv("image", 4, pads=[1, 1, 1, 1])
    weights = numpy_helper.from_array(np.random.default_rng(1).standard_normal((4, 4, 5, 5)).astype(np.float32), "inner")
    conv = helper.make_node("Conv", [x, "inner"], ["then_out"], pads=[2, 2, 2, 2])
    if body == "If":
        then = helper.make_graph([conv], "then", [], [helper.make_empty_tensor_value_info("then_out")], [weights])
        other = helper.make_graph(
            [helper.make_node("Neg", [x], ["else_out"])], "else", [], [helper.make_empty_tensor_value_info("else_out")]
        )
        condition = builder.constant(True, np.bool_)
        condition = builder.node("Not", builder.node("Not", condition))
        out = builder.node("If", condition, channels=4, then_branch=then, else_branch=other)
    else:
        values = [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("c", 9, []),
                  helper.make_tensor_value_info("a", 1, None)]  # fmt: skip
        nodes = [conv, helper.make_node("Add", ["a", "then_out"], ["b"]), helper.make_node("Identity", ["c"], ["d"])]
        outputs = [helper.make_tensor_value_info("d", 9, []), helper.make_tensor_value_info("b", 1, None)]
        loop = helper.make_graph(nodes, "loop", values, outputs, [weights])
        trips = builder.constant(3, np.int64)
        out = builder.node("Loop", trips, builder.constant(True, np.bool_), x, channels=4, body=loop)
    image = helper.make_tensor_value_info("image", 1, [1, 3, 20, 20])
    value = helper.make_tensor_value_info(out, 1, [1, 4, 20, 20])
    graph = helper.make_graph(builder.nodes, "g", [image], [value], builder.weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    bundle = kcompiler.compile(path, patch=4)
    assert check(kcompiler.load(bundle), make_grid((20, 20), (4, 4), 3).positions).agrees


@pytest.mark.parametrize("name", ["positions", "fill", "table/x", "Gather", "Add", "constant", "source/x y:0"])
@pytest.mark.parametrize("what", ["output", "value", "image"])
def test_names_of_our_own_may_be_in_the_model(name, what, tmp_path):
    path = save("residual", tmp_path / "model.onnx")
    model = onnx.load(path)
    old = {"output": model.graph.output[0].name, "value": model.graph.node[1].output[0], "image": "image"}[what]
    for names in (*(n.input for n in model.graph.node), *(n.output for n in model.graph.node)):
        for index, found in enumerate(names):
            names[index] = name if found == old else found
    for value in (*model.graph.input, *model.graph.output):
        value.name = name if value.name == old else value.name
    onnx.save(model, path)
    explainer = kcompiler.load(kcompiler.compile(path, patch=4))
    assert check(explainer, make_grid((20, 20), (4, 4), 3).positions).agrees


def test_half_precision_inside_runs_dense(tmp_path):
    builder = Builder()
    half = builder.node("Cast", builder.conv("image", 4), to=10)
    weights = builder.constant(np.random.default_rng(0).standard_normal((4, 4, 3, 3)), np.float16)
    back = builder.node("Cast", builder.node("Conv", half, weights, channels=4), to=1)
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(back, 20, 20), path)
    bundle = kcompiler.compile(path, patch=4)
    assert check(kcompiler.load(bundle), make_grid((20, 20), (4, 4), 3).positions).agrees


def test_dequantised_weights_run_dense(tmp_path):
    builder = Builder()
    quantised = builder.constant(np.random.default_rng(0).integers(-128, 128, (4, 3, 3, 3)), np.int8)
    weights = builder.node("DequantizeLinear", quantised, builder.constant(0.02))
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.node("Conv", "image", weights, channels=4), 20, 20), path)
    assert_compiles_exactly(path)


def test_infinite_outputs_stay_infinite(tmp_path):
    builder = Builder()
    x = builder.relu(builder.conv("image", 4, pads=[1, 1, 1, 1]))
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.conv(x, 4, 1), 20, 20), path)
    model = onnx.load(path)
    masked = helper.make_node("Add", [model.graph.output[0].name, "mask"], ["masked"])
    model.graph.node.append(masked)
    model.graph.initializer.append(numpy_helper.from_array(np.float32([0, 0, -np.inf, 0, 0]), "mask"))
    model.graph.output[0].name = "masked"
    onnx.save(model, path)
    outputs = kcompiler.load(kcompiler.compile(path, patch=4)).outputs(np.zeros((3, 20, 20), np.float32), [[1, 2]])
    assert np.isneginf(outputs[0, 2])


def test_model_without_a_finite_output_is_refused(tmp_path):
    builder = Builder()
    x = builder.node("Sqrt", builder.node("Sub", builder.node("Abs", "image"), builder.constant(1e6), channels=3))
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.conv(x, 4), 20, 20), path)
    with pytest.raises(ModelError, match="no finite output"):
        kcompiler.compile(path, patch=4)


def test_output_that_does_not_depend_on_the_image_is_refused(tmp_path):
    path = save("chain", tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 5), np.float32), "always"))
    model.graph.output[0].name = "always"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="does not depend on the image"):
        kcompiler.compile(path, patch=4)


def test_random_operators_are_refused(tmp_path):
    builder = Builder()
    x = builder.conv("image", 4)
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.node("Add", x, builder.node("RandomNormalLike", x)), 20, 20), path)
    with pytest.raises(ModelError, match="RandomNormalLike"):
        kcompiler.compile(path, patch=4)


def test_operator_that_onnx_runtime_lacks_is_named(tmp_path):
    path = save("chain", tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.node[1].op_type = "Frobnicate"
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="Frobnicate"):
        kcompiler.compile(path, patch=4)


def test_every_tiny_network_compiles_from_a_proto():
    builder = Builder()
    bundle = kcompiler.compile(builder.model(NETWORKS["chain"](builder), 20, 20), patch=(3, 4))
    assert bundle.manifest.patch == (3, 4)
