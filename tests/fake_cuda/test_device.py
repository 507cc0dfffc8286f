"""The fake device: its record counts what it should, and a program meets the errors that a device would return."""

from __future__ import annotations

import json

import pytest

from fake_cuda.environment import Unavailable, libraries

pytestmark = pytest.mark.fake_cuda

SESSION = """
import json
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper
from fake_cuda.recorder import Counts, Recorder

def session(nodes, inputs, outputs, **options):
    def typed(shapes):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    graph = helper.make_graph(nodes, "g", typed(inputs), typed(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), settings, providers=[("CUDAExecutionProvider", options)])

def on_device(values):
    return ort.OrtValue.ortvalue_from_numpy(values, "cuda", 0)
"""

CONVOLUTIONS = """
recorder = Recorder()
node = helper.make_node("Conv", ["x", "w"], ["y"])
inputs = {"x": ["n", 1, 8, 8], "w": [1, 1, 3, 3]}
convolved = session([node], inputs, {"y": ["n", 1, 6, 6]}, cudnn_conv_algo_search="HEURISTIC", use_tf32="0")
plans, calls = [], []
for batch in (2, 2, 3, 2):
    recorder.reset()
    convolved.run(None, {"x": np.zeros((batch, 1, 8, 8), np.float32), "w": np.zeros((1, 1, 3, 3), np.float32)})
    counts = Counts.of(recorder.events())
    plans.append(counts.plans)
    calls.append(counts.library_calls)
print(json.dumps([plans, calls]))
"""

REPLAYS = """
recorder = Recorder()
copied = session([helper.make_node("Identity", ["x"], ["y"])], {"x": [3]}, {"y": [3]}, enable_cuda_graph="1")
first, other, out = (on_device(np.full(3, value, np.float32)) for value in (1, 2, 0))
found = []
for source in (first, other):
    binding = copied.io_binding()
    binding.bind_ortvalue_input("x", source)
    binding.bind_ortvalue_output("y", out)
    recorder.reset()
    copied.run_with_iobinding(binding)
    counts = Counts.of(recorder.events())
    found.append([counts.captures, counts.replays, float(out.numpy()[0])])
first.update_inplace(np.full(3, 5, np.float32))
copied.run_with_iobinding(binding)
found.append(float(out.numpy()[0]))
print(json.dumps(found))
"""

UNPROTECTED = """
import ctypes
ctypes.string_at(on_device(np.zeros(1, np.float32)).data_ptr(), 4)
"""


def test_cudnn_plans_are_built_for_a_shape_and_the_last_is_kept(python):
    plans, calls = json.loads(python(SESSION + CONVOLUTIONS).stdout)
    assert plans == [1, 0, 1, 1], "what an engine whose shapes alternate would pay"
    assert calls == [1, 1, 1, 1]


def test_a_replay_reads_the_memory_that_was_captured(python):
    """Where a graph is replayed with inputs elsewhere, the result is stale."""
    captured, replayed, updated = json.loads(python(SESSION + REPLAYS).stdout)
    assert captured == [1, 1, 1.0]
    assert replayed == [0, 1, 1.0], "not 2, the value that was bound"
    assert updated == 5.0


def test_the_host_cannot_touch_device_memory(python):
    assert python(SESSION + UNPROTECTED, check=False).returncode < 0, "killed by a signal"


LOAD = """
try:
    print(kcompiler.load(sys.argv[1], providers=sys.argv[2:] or None).device)
except kcompiler.ProviderError as error:
    print(error)
"""


def test_cuda_is_preferred_where_it_computes(python, demo):
    assert python(LOAD, demo).stdout.strip() == "cuda"


@pytest.mark.parametrize("library", ["libcuda.so.1", "libcudart.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"])
def test_a_library_that_cannot_be_loaded_is_named(library, python, demo, variables, tmp_path):
    (tmp_path / library).touch()  # found first, and no library
    search = f"{tmp_path}:{variables['LD_LIBRARY_PATH']}"
    assert library in python(LOAD, demo, "cuda", LD_LIBRARY_PATH=search).stdout
    assert python(LOAD, demo, LD_LIBRARY_PATH=search).stdout.strip() == "cpu"


THREADS = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from fake_cuda.recorder import Counts, Recorder
explainer = kcompiler.load(sys.argv[1], providers=["cuda"], cuda=kcompiler.CudaOptions(graphs=True))
images = np.random.default_rng(0).standard_normal((18, 3, 224, 224), dtype=np.float32)
with ThreadPoolExecutor(3) as pool:
    assert len(list(pool.map(lambda image: explainer.explain(image, stride=8), images))) == 18
counts = Counts.of(Recorder().events())
assert counts.replays > 0
assert counts.refusals == ()
"""


def test_threads_may_explain_images_while_runs_are_captured(python, demo):
    python(THREADS, demo)


def test_a_device_without_kernels_is_an_error_or_left_alone(python, demo):
    """The build of ONNX Runtime has kernels for some compute capabilities only."""
    said = python(LOAD, demo, "cuda", FAKE_CUDA_COMPUTE_CAPABILITY="61").stdout
    assert "no kernel image" in said
    assert "compute capability" in said
    assert python(LOAD, demo, FAKE_CUDA_COMPUTE_CAPABILITY="61").stdout.strip() == "cpu"


def test_without_a_compiler_there_is_no_device(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(Unavailable, match="no-such-compiler is not found"):
        libraries()
    assert list((tmp_path / "kcompiler-fake-cuda").iterdir()) == [], "nothing half-made"
