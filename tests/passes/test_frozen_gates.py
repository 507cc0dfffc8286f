"""Frozen gates, wherever the dense tail starts: full inference in which the uncovered image's gates take the place of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from capped import PATCH
from networks import save
from onnx import TensorProto, helper
from onnxruntime import InferenceSession
from source_file import NEVER_DENSE, cover_by_hand, run_file

import kcompiler
from kcompiler.options import Approximation, Options
from kcompiler.passes.plan import make_plan
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.pipeline import analyse, compile_file
from kcompiler.runtime.measuring.check import sample_positions

ROOT = Path(__file__).parents[2]
SHAPE = (20, 24)
FROZEN = Approximation(Thresholds(freeze_gates=True))
GATES = {"gated": ("HardSigmoid", "MatMul"), "patch_into_wide_map": ("Sigmoid",), "blended": ("Sigmoid",)}
"""Operators that make the gates, by network."""
DENSE_SHARES = (0.0, *(tenths / 10 for tenths in range(1, 11)), NEVER_DENSE)


def made_by(path, operators):
    return [node.output[0] for node in onnx.load(path).graph.node if node.op_type in operators]


def scaling_maps(path):
    """Names of the values of a single cell that a Mul spreads over a map."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:] for value in graph.value_info}
    products = [node for node in graph.node if node.op_type == "Mul" and sizes[node.output[0]] != [1, 1]]
    return sorted({name for node in products for name in node.input if sizes.get(name) == [1, 1]})


def with_gates_of_the_uncovered(path, gates, image, covered):
    """The file's outputs [N, K] of the ``covered`` images, where ``gates`` have their values for the uncovered ``image``."""
    model = onnx.load(path)
    values = {gate: run_file(path, image, gate) for gate in gates}
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            if name in gates:
                node.output[number] = f"{name}/replaced"
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, values[name].shape) for name in gates)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image_input = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {image_input: one[None], **values})[0] for one in covered])


def assert_keeps_gates(path, gates, bundle, patch):
    """The variant with frozen gates, for either device, against :func:`with_gates_of_the_uncovered`."""
    shape = bundle.manifest.shape
    image = np.random.default_rng(2).standard_normal((1, *shape), dtype=np.float32)
    positions = sample_positions(shape[1:], patch, 12, 0)
    covered = cover_by_hand(image[0], positions, 0.7, patch)
    expected = with_gates_of_the_uncovered(path, gates, image, covered)
    exact = run_file(path, covered)
    assert np.abs(exact - expected).max() > 1e-3 * np.ptp(exact, axis=0).max(), "it does make a difference"
    for device in ("cpu", "cuda"):
        engine = kcompiler.load(bundle, providers=["cpu"], threads=1, compiled_for=device).engines["gates"]
        found = engine.evaluate_all(engine.baseline(image, 0.7), positions)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dense_share", DENSE_SHARES)
def test_gates_are_those_of_the_uncovered_image(name, dense_share, tmp_path):
    path = save(name, tmp_path / "model.onnx", *SHAPE)
    options = Options(patch=PATCH, dense_share=dense_share, device="cuda", approximations=(FROZEN,))
    assert_keeps_gates(path, made_by(path, GATES[name]), compile_file(path, options), PATCH)


def test_merges_of_gates_run_dense_at_some_share(tmp_path):
    """What the test above is about: each merge of a gate is dense at some share, and incremental at some."""
    graph = analyse(save("gated", tmp_path / "model.onnx", *SHAPE), Options(patch=PATCH), tmp_path).graph
    seen = {
        (node.op, decision.incremental)
        for share in DENSE_SHARES
        for plan in [make_plan(graph, PATCH, share, FROZEN.thresholds)]
        for node, decision in zip(graph.nodes, plan.decisions, strict=True)
        if any(value.name in plan.frozen for value in node.inputs)
    }
    assert {(operator, incremental) for operator in ("Add", "Mul") for incremental in (True, False)} <= seen


@pytest.mark.slow
@pytest.mark.parametrize("dense_share", [None, 0.3])
@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small", "regnet_y_400mf"])
def test_published_networks(name, dense_share, tmp_path):
    pytest.importorskip("torch")
    path, patch = tmp_path / f"{name}.onnx", (8, 8)
    command = [sys.executable, "-m", "models.export", name, "-o", str(path), "--size", "192", "192"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    bundle = compile_file(path, Options(patch=patch, dense_share=dense_share, device="cuda", approximations=(FROZEN,)))
    assert_keeps_gates(path, scaling_maps(path), bundle, patch)
