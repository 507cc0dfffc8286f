"""What compiled models ask of ONNX Runtime is there, by processor, WebAssembly, WebGPU and CUDA: see ``tests/kernels/``."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import onnx
import onnxruntime
import pytest
from artifacts import LARGE, QUICK, of
from bench.kernels import by_operator, registered
from onnx import TensorProto, helper
from stacks import Asked, asked_by, stack

from kcompiler.passes import assumed

ROOT = Path(__file__).parents[3]
TITLES = {"webgpu": "WebGPU", "cuda": "CUDA"}


everywhere = pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])


def without_kernel(name: str, provider: str) -> dict[str, set[str]]:
    """Operators that the execution provider has no kernel for, by element type."""
    found: dict[str, set[str]] = {}
    for asked in {asked for model in of(name).values() for asked in model}:
        if not stack(provider).has(asked):
            found.setdefault(asked.kind, set()).add(asked.operator)
    return found


@cache
def documented(provider: str) -> dict[str, set[str]]:
    """The same, as docs/operators.md lists it."""
    text = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| {TITLES[provider]} \| (\w+) \| (.*) \|$", text, re.MULTILINE)
    return {kind.replace("float32", "float"): set(re.findall(r"\w+", operators)) for kind, operators in rows}


@pytest.mark.parametrize("provider", ["cpu", "wasm"])
@everywhere
def test_processors_have_all_kernels(name, provider):
    assert {"baseline.onnx", "incremental.onnx"} <= of(name).keys()
    for model, nodes in of(name).items():
        for asked in nodes:
            assert stack(provider).has(asked), f"{model}: {asked}"


@pytest.mark.parametrize("provider", ["webgpu", "cuda"])
@everywhere
def test_devices_have_all_kernels_but_those_documented(name, provider):
    for kind, operators in without_kernel(name, provider).items():
        assert operators <= documented(provider).get(kind, set()), kind


@pytest.mark.parametrize("provider", ["webgpu", "cuda"])
def test_documented_operators_are_those_without_a_kernel(provider):
    found: dict[str, set[str]] = {}
    for name in QUICK:
        for kind, operators in without_kernel(name, provider).items():
            found.setdefault(kind, set()).update(operators)
    assert found == documented(provider)


@everywhere
def test_webgpu_binds_no_more_buffers_than_every_device_has(name):
    webgpu = stack("webgpu")
    for model, nodes in of(name).items():
        for asked in nodes:
            assert asked.operator != "Split" or len(asked.outputs) <= assumed.WIDEST_SPLIT, f"{model}: {asked}"
            assert not webgpu.has(asked) or webgpu.buffers(asked) <= webgpu.limits["storage_buffers"], f"{model}: {asked}"


@everywhere
def test_what_webgpu_leaves_to_the_processor_is_of_types_that_its_build_has(name):
    webgpu = stack("webgpu")
    for model, nodes in of(name).items():
        for asked in nodes:
            assert webgpu.has(asked) or {kind for _, kind in asked.types} <= set(webgpu.limits["processor_types"]), (
                f"{model}: {asked}"
            )


def test_artifacts_are_as_wide_as_they_are_meant_to_be():
    """Else the tests above would show nothing."""
    widest = {asked.operator: len(asked.inputs) for asked in of("wide")["incremental.onnx"] if len(asked.inputs) > 8}
    assert widest == {"Concat": 14, "Sum": 12, "Max": 12}
    assert max(len(asked.inputs) for asked in of("micro-batches")["incremental.onnx"]) >= 16
    assert any(asked.operator == "Loop" for asked in of("micro-batches")["map.onnx"])
    in_body = {asked.operator for asked in of("demo")["incremental.onnx"]}
    assert in_body <= {asked.operator for asked in of("demo")["map.onnx"]}, "the body of the loop is looked into"


def one_node(operator: str, kind: int, opset: int, *inputs: str, outputs: int = 1, **attributes: object) -> Asked:
    names = [f"y{number}" for number in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, names, **attributes)], "one",
        [helper.make_tensor_value_info(name, kind, [8]) for name in dict.fromkeys(inputs)],
        [onnx.ValueInfoProto(name=name) for name in names],
    )  # fmt: skip
    (asked,) = asked_by(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))
    return asked


def test_kernels_are_found_by_version_and_types():
    of_floats, of_integers = (one_node("Add", kind, 20, "a", "b") for kind in (TensorProto.FLOAT, TensorProto.INT64))
    assert [stack(name).has(of_floats) for name in ("cpu", "wasm", "webgpu", "cuda")] == [True] * 4
    assert [stack(name).has(of_integers) for name in ("cpu", "wasm", "webgpu", "cuda")] == [True, True, False, True]
    relu = one_node("Relu", TensorProto.FLOAT, 20, "a")
    assert not stack("webgpu").has(Asked(**{**{name: getattr(relu, name) for name in relu.__slots__}, "since": 99}))
    split = one_node("Split", TensorProto.FLOAT, 20, "a", outputs=8, axis=0, num_outputs=8)
    assert stack("webgpu").buffers(split) == 9


@pytest.mark.skipif(stack("cpu").source != f"onnxruntime {onnxruntime.__version__}", reason="another version is installed")
def test_the_file_of_the_processor_is_what_is_registered():
    registry = by_operator(registered("cpu", None))
    assert registry.keys() == stack("cpu").kernels.keys()
    for operator, kernels in registry.items():
        read = [(kernel.first, kernel.last, dict(kernel.types)) for kernel in stack("cpu").kernels[operator]]
        assert read == [(first, last, dict(types)) for first, last, types in kernels], operator
