"""CUDA's options and failures, without a device."""

from __future__ import annotations

import pytest

import kcompiler
from kcompiler.runtime.inference import cuda
from kcompiler.runtime.inference.cuda import CudaOptions, failures


def test_options_by_their_names_in_onnx_runtime():
    assert CudaOptions().provider_options == {
        "use_tf32": "0", "enable_cuda_graph": "0", "cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "1",
        "prefer_nhwc": "0",
    }  # fmt: skip
    given = CudaOptions(tf32=True, graphs=True, search="EXHAUSTIVE", channels_last=True).provider_options
    assert [given[name] for name in ("use_tf32", "enable_cuda_graph", "cudnn_conv_algo_search", "prefer_nhwc")] == [
        "1", "1", "EXHAUSTIVE", "1"
    ]  # fmt: skip


def failing(why: str, device: str) -> None:
    with failures(device):
        raise RuntimeError(why)


@pytest.mark.parametrize(
    ("why", "advice"),
    [
        ("CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available", "no code for this GPU's architecture"),
        ("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 123", "allow less, see 'memory'"),
        ("CUDA failure 2: out of memory ; GPU=0", "allow less, see 'memory'"),
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", "update the driver, or ask for cpu"),
    ],
)
def test_failures_of_the_device_come_with_advice(why, advice):
    with pytest.raises(kcompiler.ProviderError, match=advice) as caught:
        failing(why, "cuda")
    assert why in str(caught.value)


def test_other_failures_pass():
    with pytest.raises(RuntimeError, match="no such input"):
        failing("no such input", "cuda")
    with pytest.raises(RuntimeError, match="out of memory"):
        failing("out of memory", "cpu")


def test_why_it_does_not_start_names_the_library(monkeypatch):
    monkeypatch.setattr(cuda, "_loads", lambda library: not library.startswith(("libcudnn", "libcublas.")))
    assert "libcublas.so.13 (cuBLAS), libcudnn.so.9 (cuDNN 9) cannot be loaded" in cuda.why_not(None)
    monkeypatch.setattr(cuda, "_loads", lambda library: False)
    assert "libcuda.so.1 (the NVIDIA driver) cannot be loaded: this machine has no NVIDIA GPU" in cuda.why_not(None)
