"""The machine, and what ONNX Runtime reaches on it: rates of the operators that compiled models are made of.

The time of an operator is a difference: that of a graph with more of it in a row less that of one with fewer.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from bench.on_cuda.scale import Scale
from bench.on_cuda.worker import Run
from onnx import TensorProto, helper, numpy_helper

from kcompiler.runtime.inference.cuda import CudaOptions
from kcompiler.runtime.inference.sessions import Machine, captured_as, onnxruntime, open_session

ASKED = "name,memory.total,driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit,temperature.gpu"
PACKAGES = ("onnxruntime-gpu", "onnxruntime", "torch", "numpy", "onnx", "nvidia-cudnn-cu13", "nvidia-cublas", "kcompiler")
RATES = "rates.json"
TIMED = 3
FLOAT_BYTES = 4


def environment(run: Run) -> None:
    """Device, driver, versions; fails where CUDA does not start."""
    ort = onnxruntime()
    run.tell("versions", versions := _versions(), ", ".join(f"{name} {found}" for name, found in versions.items()))
    run.tell("cpu", os.cpu_count(), f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    run.tell("build", ort.get_build_info(), ort.get_build_info()[:160])
    if run.scale.provider == "cuda":
        found = device()
        run.tell("device", found, ", ".join(f"{key} {value}" for key, value in found.items()))
    machine = Machine((run.scale.provider,))
    run.tell("providers", machine.names, ", ".join(machine.names))
    if run.scale.provider == "cuda":
        libraries = {"cuDNN": _called("libcudnn.so.9", "cudnnGetVersion"), "CUDA runtime": _cuda_version("cudaRuntimeGetVersion"),
                     "CUDA of the driver": _cuda_version("cudaDriverGetVersion")}  # fmt: skip
        run.tell("libraries", libraries, ", ".join(f"{name} {found}" for name, found in libraries.items()))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def device() -> dict[str, str]:
    """What nvidia-smi says of the GPU, else PyTorch; clocks are those of an idle device unless something runs on it."""
    line = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=10, check=True)
        return dict(zip(ASKED.split(","), (value.strip() for value in done.stdout.splitlines()[0].split(",")), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as why:
        if importlib.util.find_spec("torch") is None:
            return {"name": f"unknown ({why})"}
    code = "import torch; p = torch.cuda.get_device_properties(0); print(p.name, p.total_memory, torch.version.cuda, sep=';')"
    line = [sys.executable, "-P", "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    return dict(zip(("name", "memory.total", "CUDA of PyTorch"), done.stdout.strip().split(";"), strict=False))


def _called(library: str, function: str) -> object:
    try:
        return getattr(ctypes.CDLL(library), function)()
    except (OSError, AttributeError) as error:
        return f"unknown ({error})"


def _cuda_version(function: str) -> object:
    number = ctypes.c_int()
    try:
        getattr(ctypes.CDLL("libcudart.so.13"), function)(ctypes.byref(number))
    except (OSError, AttributeError) as error:
        return f"unknown ({error})"
    return number.value


@dataclass(frozen=True, slots=True)
class Chain:
    """Equal operators in a row on a tensor of float32, whose shape they keep.

    Attributes:
        operator: of ONNX.
        shape: of the tensor.
        done: what one of them does, in ``unit``.
        others: its further inputs by name: those named "fixed" are initializers.
        attributes: of the operator.
        unit: "FLOP/s", "bytes/s", or "s" for the time of one.
        options: of CUDA.
        optimise: whether ONNX Runtime may rewrite the graph: it leaves out pairs of transpositions.
    """

    operator: str
    shape: tuple[int, ...]
    done: float
    unit: str
    others: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)
    options: CudaOptions = field(default_factory=CudaOptions)
    optimise: bool = True

    def model(self, length: int) -> bytes:
        """The operator ``length`` times, then the largest element, so that little is fetched from the device."""
        names = list(self.others)
        nodes = [
            helper.make_node(self.operator, [f"x{number}", *names], [f"x{number + 1}"], **self.attributes)
            for number in range(length)
        ]
        nodes.append(helper.make_node("ReduceMax", [f"x{length}"], ["largest"], keepdims=0))
        fixed = [numpy_helper.from_array(value, name) for name, value in self.others.items() if name.startswith("fixed")]
        free = {"x0": np.zeros(0, np.float32), **{n: v for n, v in self.others.items() if not n.startswith("fixed")}}
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), self._shape(name, value))
            for name, value in free.items()
        ]
        output = helper.make_tensor_value_info("largest", TensorProto.FLOAT, [])
        graph = helper.make_graph(nodes, "chain", inputs, [output], fixed)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()

    def _shape(self, name: str, value: Any) -> Sequence[int]:
        return self.shape if name == "x0" else value.shape

    def runner(self, provider: str, length: int) -> Callable[[], object]:
        """A function that runs ``length`` of them on values that lie on the device, and waits for the end."""
        graphs = self.options.graphs
        machine = Machine((provider,), cuda=self.options)
        session = open_session(self.model(length), machine, optimise=self.optimise, shared={} if graphs else None)
        binding, ort = session.io_binding(), onnxruntime()
        some = np.random.default_rng(0).standard_normal(1 << 16, dtype=np.float32)
        free = {"x0": np.resize(some, self.shape), **self.others}
        for name in (value.name for value in session.get_inputs()):
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(free[name], provider, 0))
        if not graphs:
            binding.bind_output("largest", "cpu")
            return lambda: session.run_with_iobinding(binding)
        largest = ort.OrtValue.ortvalue_from_numpy(np.zeros((), np.float32), provider, 0)
        binding.bind_ortvalue_output("largest", largest)

        def replay() -> object:
            session.run_with_iobinding(binding, captured_as(1))
            return largest.numpy()

        return replay

    def rate(self, provider: str, lengths: tuple[int, int]) -> float:
        """Units a second, or seconds of one."""
        few, many = (seconds(self.runner(provider, length), TIMED) for length in lengths)
        each = (many - few) / (lengths[1] - lengths[0])
        each = each if each > 0 else many / lengths[1]
        return each if self.unit == "s" else self.done / each


def seconds(work: Callable[[], object], rounds: int, warm: int = 2) -> float:
    """The median time of a call."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def chains(scale: Scale) -> dict[str, Chain]:
    """What is measured, by name."""
    side, floats = scale.gemm, scale.floats
    rng = np.random.default_rng(1)
    some = rng.standard_normal(1 << 16, dtype=np.float32) / np.float32(np.sqrt(side))
    matrix = {"other": np.resize(some, (side, side))}
    gemm = partial(Chain, "MatMul", (side, side), 2.0 * side**3, "FLOP/s", matrix)
    rows = floats // 256
    permuted = {"other": rng.permutation(rows)}
    square = (int(floats**0.5),) * 2
    launch = partial(Chain, "Add", (64,), 1.0, "s", {"other": np.ones(64, np.float32)})
    return {
        "gemm": gemm(),
        "gemm tf32": gemm(options=CudaOptions(tf32=True)),
        "conv": _conv(scale.convolution),
        "conv nhwc": _conv(scale.convolution, channels_last=True),
        "conv tf32": _conv(scale.convolution, tf32=True),
        "conv of regions": _conv(scale.regions),
        "conv of regions nhwc": _conv(scale.regions, channels_last=True),
        "conv of regions exhaustive": _conv(scale.regions, search="EXHAUSTIVE"),
        "copy": Chain("Neg", (floats,), 2.0 * FLOAT_BYTES * floats, "bytes/s"),
        "gather of rows": Chain("Gather", (rows, 256), 2.0 * FLOAT_BYTES * floats, "bytes/s", permuted, {"axis": 0}),
        "transpose": Chain("Transpose", square, 2.0 * FLOAT_BYTES * floats, "bytes/s", {}, {"perm": [1, 0]}, optimise=False),
        "launch": launch(),
        **({"launch in a CUDA graph": launch(options=CudaOptions(graphs=True))} if scale.provider == "cuda" else {}),
    }


def _conv(sizes: tuple[int, int, int], **options: Any) -> Chain:
    count, channels, side = sizes
    shape = (channels, channels, 3, 3)
    scale = np.float32(np.sqrt(9 * channels))
    weights = {"fixed": np.random.default_rng(2).standard_normal(shape, dtype=np.float32) / scale}
    flops = 2.0 * count * side * side * 9 * channels**2
    maps = (count, channels, side, side)
    return Chain("Conv", maps, flops, "FLOP/s", weights, {"pads": [1, 1, 1, 1]}, CudaOptions(**options))


def rates(run: Run) -> None:
    """Measures every rate, and writes them for predictions."""
    measured: dict[str, float] = {}

    def measure(name: str, chain: Chain) -> None:
        lengths = run.scale.launches if chain.unit == "s" else run.scale.chains
        measured[name] = chain.rate(run.scale.provider, lengths)
        run.tell(name, {"value": measured[name], "unit": chain.unit}, _text(measured[name], chain.unit))

    for name, chain in chains(run.scale).items():
        run.attempt(name, partial(measure, name, chain))
        (run.folder / RATES).write_text(json.dumps(measured))


def _text(value: float, unit: str) -> str:
    if unit == "s":
        return f"{1e6 * value:.2f} us"
    return f"{value / 1e12:.3g} TFLOP/s" if unit == "FLOP/s" else f"{value / 1e9:.4g} GB/s"
