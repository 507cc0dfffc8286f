"""Full inference in PyTorch, for what ONNX Runtime's is worth: eager, channels last, and compiled."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bench.on_cuda.rates import seconds
from bench.on_cuda.worker import Run

MISSING = "PyTorch is not installed"


def eager(run: Run) -> None:
    """Seconds per image in float32 and TF32, in both layouts."""
    if not _present(run):
        return
    networks, side, batches = run.scale.torch
    for network in networks:
        for batch in batches:
            run.attempt(f"{network}, batch {batch}", partial(_measured, run, network, side, batch))


def compiled(run: Run) -> None:
    """The same through torch.compile, at the largest batch size."""
    if not _present(run):
        return
    import torch

    networks, side, batches = run.scale.torch
    _set(tf32=False)
    for network in networks:
        run.check()
        model, images = _placed(run, network, side, batches[-1], channels_last=True)
        start = time.perf_counter()
        faster = torch.compile(model, backend="inductor" if run.scale.provider == "cuda" else "eager")
        each = seconds(_runner(faster, images), run.scale.rounds) / batches[-1]
        took = time.perf_counter() - start
        run.tell(network, {"seconds": each, "compiling": took}, f"{1e3 * each:.4g} ms an image; {took:.0f} s to compile and time")


def _present(run: Run) -> bool:
    if importlib.util.find_spec("torch") is None:
        run.tell("torch", {"missing": MISSING}, MISSING)
        return False
    return True


def _measured(run: Run, network: str, side: int, batch: int) -> None:
    found = {}
    for name, tf32 in _settings(run):
        _set(tf32=tf32)
        model, images = _placed(run, network, side, batch, channels_last="channels last" in name)
        found[name] = seconds(_runner(model, images), run.scale.rounds) / batch
    text = ", ".join(f"{name} {1e3 * value:.4g}" for name, value in found.items())
    run.tell(f"{network}, batch {batch}", found, f"ms an image: {text}")


def _settings(run: Run) -> Iterator[tuple[str, bool]]:
    """Names, and whether products are rounded to TF32."""
    yield "NCHW", False
    yield "channels last", False
    if run.scale.provider == "cuda":
        yield "TF32, channels last", True


def _set(*, tf32: bool) -> None:
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def _placed(run: Run, network: str, side: int, batch: int, *, channels_last: bool) -> tuple[Any, Any]:
    """The network and images on the device."""
    import torch

    from models.networks import NETWORKS

    layout = torch.channels_last if channels_last else torch.contiguous_format
    device = run.scale.provider
    key = f"torch {network}"
    if key not in run.kept:
        run.kept[key] = NETWORKS[network].build(num_classes=1000).eval().to(device)
    images = torch.zeros(batch, 3, side, side, device=device).normal_().to(memory_format=layout)
    return run.kept[key].to(memory_format=layout), images


def _runner(model: Any, images: Any) -> Callable[[], object]:
    import torch

    def work() -> object:
        with torch.inference_mode():
            return model(images).cpu()  # waits for the device

    return work
