"""CUDA: the options of ONNX Runtime's execution provider, and whether it starts on this machine."""

from __future__ import annotations

import ctypes
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ProviderError
from kcompiler.runtime.foreign import ForeignFailure, foreign

if TYPE_CHECKING:
    import onnxruntime as ort

NAME = "CUDAExecutionProvider"
LIBRARIES = (
    ("libcuda.so.1", "the NVIDIA driver"),
    ("libcudart.so.13", "the CUDA 13 runtime"),
    ("libcublas.so.13", "cuBLAS"),
    ("libcublasLt.so.13", "cuBLAS"),
    ("libcufft.so.12", "cuFFT"),
    ("libcurand.so.10", "cuRAND"),
    ("libcudnn.so.9", "cuDNN 9"),
)
"""What ONNX Runtime's CUDA provider loads on Linux, and what each library belongs to."""
PROBE = bytes.fromhex(
    "08083a5c0a0c0a0178120172220452656c750a0f0a01720a01781201792204436f6e761201705a1b0a017812160a14080112100a0208010a0208010a"
    "0208010a020801621b0a017912160a14080112100a0208010a0208010a0208010a02080142040a001012"
)
"""Conv(Relu(x), x) of float32 [1, 1, 1, 1], opset 18: a kernel of ONNX Runtime and one of cuDNN. This package writes no ONNX."""
RUNNING = threading.Lock()
"""Held while a session runs whose activations lie in memory that it shares with other sessions. Where runs are captured as CUDA
graphs, held while anything reaches the device: a capture forbids all threads to allocate, and results keep their place.
"""


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """How sessions use CUDA.

    Attributes:
        tf32: whether float32 products round their operands to TF32. ONNX Runtime's own default is that they do.
        graphs: whether batches of the same shapes and addresses are captured as CUDA graphs and replayed.
        search: how cuDNN's convolution algorithms are chosen.
        channels_last: whether convolutions run on channels-last tensors.
    """

    tf32: bool = False
    graphs: bool = False
    search: Literal["DEFAULT", "HEURISTIC", "EXHAUSTIVE"] = "HEURISTIC"
    channels_last: bool = False

    @property
    def provider_options(self) -> dict[str, str]:
        """The options of the execution provider, by their names in ONNX Runtime."""
        return {
            "use_tf32": str(int(self.tf32)),
            "enable_cuda_graph": str(int(self.graphs)),
            "cudnn_conv_algo_search": self.search,
            "cudnn_conv_use_max_workspace": "1",
            "prefer_nhwc": str(int(self.channels_last)),
        }


@cache
def starts(ort: Any) -> bool:
    """Whether the CUDA provider of the module ``ort`` (onnxruntime) starts on this machine, and computes."""
    return NAME in ort.get_available_providers() and _failure(ort) is None


@cache
def _failure(ort: Any) -> str | None:
    """What ONNX Runtime says as it runs a model on CUDA: "" if the provider does not start, None if all is well.

    It starts without cuDNN, and on GPUs that it has no kernels for: either shows when a node runs.
    """
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()  # CUDA and cuDNN as installed by pip, if they are
    options = ort.SessionOptions()
    options.log_severity_level = 4
    providers = [(NAME, CudaOptions().provider_options), "CPUExecutionProvider"]
    session = ort.InferenceSession(PROBE, options, providers=providers)
    if NAME not in session.get_providers():
        return ""
    session.disable_fallback()  # to the CPU, on failure
    try:
        with foreign():
            session.run(None, {"x": np.ones((1, 1, 1, 1), np.float32)})
    except ForeignFailure as failure:
        return str(failure)
    return None


def why_not(ort: Any) -> str:
    """The reason that CUDA does not start, as far as it can be told, and what to do."""
    missing = [f"{library} ({what})" for library, what in LIBRARIES if not _loads(library)]
    if missing and missing[0].startswith("libcuda."):
        return f"{missing[0]} cannot be loaded: this machine has no NVIDIA GPU, or no driver for it"
    if missing:
        return f"{', '.join(missing)} cannot be loaded; pip install 'onnxruntime-gpu[cuda,cudnn]' brings what is not the driver's"
    if failure := _failure(ort):
        return (
            f"all its libraries load, but a model fails ({failure}): this ONNX Runtime may lack kernels for the GPU's compute "
            "capability (nvidia-smi --query-gpu=compute_cap --format=csv), or the driver be too old"
        )
    return "all its libraries load; the driver may be too old for them, or show no GPU to this process (nvidia-smi)"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@cache
def share_arena(ort: Any) -> None:
    """Lets sessions that ask for it allocate activations from one pool of this process.

    Runs of such sessions must not overlap (:data:`RUNNING`): ONNX Runtime frees memory when it has enqueued its last use.
    """
    memory = ort.OrtMemoryInfo("Cuda", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    arena = ort.capi.onnxruntime_pybind11_state.OrtArenaCfg({})
    ort.create_and_register_allocator_v2(NAME, memory, {}, arena)


def shareable(module: Any, values: AnyArray) -> ort.OrtValue:
    """``values`` on the device, as several sessions can have them as an initializer: its memory must not be the value's own."""
    owned = module.OrtValue.ortvalue_from_numpy(values, "cuda", 0)._ortvalue
    return module.OrtValue(type(owned).from_dlpack(owned.to_dlpack(), values.dtype == np.bool_))


ADVICE = (
    (("no kernel image", "cudaErrorNoKernelImageForDevice"), "this ONNX Runtime has no code for this GPU's architecture"),
    (
        ("out of memory", "Failed to allocate memory", "BFCArena"),
        "the device's memory does not suffice: allow less, see 'memory'",
    ),
    (("CUDNN", "CUBLAS", "CUDA"), "update the driver, or ask for cpu"),
)
"""What to do about a failure whose text has one of these words."""


@contextmanager
def failures(device: str) -> Iterator[None]:
    """Raises failures of ONNX Runtime on ``device`` "cuda" as :class:`ProviderError`, with advice; others pass."""
    try:
        with foreign():
            yield
    except ForeignFailure as failure:
        why = str(failure)
        advice = next((advice for words, advice in ADVICE if any(word in why for word in words)), None)
        if device != "cuda" or advice is None:
            raise failure.__cause__ or failure from None
        raise ProviderError(f"CUDA failed: {why}: {advice}") from failure.__cause__
