"""Alternatives to time with ``kcompiler bench --against``: the same network in PyTorch, and Captum's Occlusion on it."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.errors import UsageError

BATCHES = (1, 8, 16)
LEAST_POSITIONS = 32


def torch_module(name: str) -> Any:
    """The network that ``package.module:function`` returns, in inference mode; the current folder is on the module path.

    Raises:
        UsageError: PyTorch is not installed, or there is no such function.
    """
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module("torch")
        return getattr(importlib.import_module(module), function)().eval()
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--torch-module {name!r}: {error}; expected package.module:function, with torch installed") from error


def torch_seconds(module: Any, image: FloatArray, threads: int | None) -> float:
    """Seconds per image (float32 [1, C, H, W]) of eager PyTorch at its best batch size."""
    torch = importlib.import_module("torch")
    if threads is not None:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        return min(_best(partial(module, torch.from_numpy(image.repeat(size, axis=0))), size) for size in BATCHES)


def captum_seconds(module: Any, image: FloatArray, patch: tuple[int, int], threads: int | None) -> float:
    """Seconds per position of ``captum.attr.Occlusion`` at its best number of perturbations per run.

    Raises:
        UsageError: Captum is not installed.
    """
    torch = importlib.import_module("torch")
    try:
        occlusion = importlib.import_module("captum.attr").Occlusion(module)
    except ImportError as error:
        raise UsageError(f"--against captum: {error}; pip install captum") from error
    if threads is not None:
        torch.set_num_threads(threads)
    channels, height, width = image.shape[1:]
    least = max(1, int(np.sqrt(height * width / LEAST_POSITIONS)))
    strides = tuple(min(least, size) for size in patch)  # Captum takes no stride beyond the patch
    # Captum adds another patch where the stride does not end at the border.
    positions = 1
    for size, side, stride in zip((height, width), patch, strides, strict=True):
        positions *= -(-(size - side) // stride) + 1
    tensor = torch.from_numpy(image)

    def attribute(size: int) -> None:
        occlusion.attribute(
            tensor,
            sliding_window_shapes=(channels, *patch),
            strides=(channels, *strides),
            target=0,
            perturbations_per_eval=size,
        )

    with torch.inference_mode():
        return min(_best(partial(attribute, size), positions) for size in BATCHES)


def _best(run: Callable[[], object], count: int) -> float:
    """Seconds of ``run`` over ``count``: the minimum of three runs, after a run for warming up."""
    run()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) / count
