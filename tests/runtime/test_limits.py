"""What runs within limits ends: by its result, by its own error, or by a limit."""

from __future__ import annotations

import hashlib
import json
import os
import time

import numpy as np
import onnx
import pytest
from networks import save
from onnx import TensorProto, helper, numpy_helper

import kcompiler
from kcompiler.cli import main
from kcompiler.runtime.bundle.manifest import MANIFEST
from kcompiler.runtime.bundle.seal import OPEN, sealed
from kcompiler.runtime.limits import within_limits

IMAGE = np.random.default_rng(0).standard_normal((3, 20, 20), dtype=np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    return kcompiler.compile(save("residual", folder / "model.onnx"), patch=4).save(folder / "model.kc")


def looping(bundle):
    """The bundle, with a loop without end before the last node of the models that see the whole image."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    for name in ("baseline.onnx", "full.onnx"):
        content = with_loop(onnx.load(bundle / name, load_external_data=False)).SerializeToString()
        (bundle / name).write_bytes(content)
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / MANIFEST).write_bytes(sealed(json.dumps({**manifest, "manifest_sha256": OPEN})))
    return bundle


def with_loop(model):
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["v"], ["w"])], "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )  # fmt: skip
    last = model.graph.node[-1]
    given, last.input[0] = last.input[0], "turned"
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Loop", ["", "always", given], ["turned"], body=body))
    return model


def test_results_and_errors_come_back():
    assert within_limits(max, 3, 5, max_seconds=100) == 5
    with pytest.raises(ZeroDivisionError):
        within_limits(divmod, 1, 0)
    with pytest.raises(kcompiler.LimitExceeded, match=r"ended its process \(SIGABRT\)"):
        within_limits(os.abort)


def test_time_is_limited():
    start = time.perf_counter()
    with pytest.raises(kcompiler.LimitExceeded, match=r"took more than 0.5 s \(--max-seconds\)"):
        within_limits(time.sleep, 600, max_seconds=0.5)
    assert time.perf_counter() - start < 300


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux limits memory")
def test_memory_is_limited():
    with pytest.raises(kcompiler.LimitExceeded, match=r"more memory than the 1.0 GB that it may \(--max-memory\)"):
        within_limits(bytes, 1 << 33, max_memory=10**9)
    with pytest.raises(kcompiler.UsageError, match="max_memory is 1000 bytes, expected at least"):
        within_limits(bytes, 1, max_memory=1000)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_limits_that_are_none(seconds):
    with pytest.raises(kcompiler.UsageError, match="expected a number above 0"):
        within_limits(bytes, 1, max_seconds=seconds)


def test_an_explanation_within_limits_is_the_same(bundle):
    expected = kcompiler.load(bundle, threads=1).explain(IMAGE, stride=4)
    found = kcompiler.explain_within(bundle, IMAGE, stride=4, load={"threads": 1}, max_seconds=100, max_memory=4 << 30)
    assert np.array_equal(found.scores, expected.scores)
    with pytest.raises(kcompiler.BundleError, match="not a compiled bundle"):
        kcompiler.explain_within(bundle.parent, IMAGE, max_seconds=100)


def test_a_model_without_end_is_ended(tmp_path, monkeypatch, capfd):
    forged = looping(kcompiler.compile(save("residual", tmp_path / "model.onnx"), patch=4).save(tmp_path / "model.kc"))
    np.save(tmp_path / "a.npy", IMAGE)
    call = ["explain", str(forged), str(tmp_path / "a.npy"), "-o", str(tmp_path / "out"), "--max-seconds", "6"]
    monkeypatch.setattr("sys.argv", ["kcompiler", *call])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 3
    assert capfd.readouterr().err.startswith(f"error: {forged}: took more than 6 s (--max-seconds); it was ended")
    assert not list((tmp_path / "out").glob("*.npy"))
