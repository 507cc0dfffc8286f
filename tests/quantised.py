"""Quantised networks for tests: tiny ones, quantised by ONNX Runtime's own tools on random pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from networks import CHANNELS, Builder
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

HEIGHT, WIDTH = 12, 14
CALIBRATED = 8
"""Pictures that ranges are taken from."""


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    """Random images, standard normal."""

    def __init__(self, height: int, width: int) -> None:
        rng = np.random.default_rng(3)
        self._images = iter([rng.standard_normal((1, CHANNELS, height, width), dtype=np.float32) for _ in range(CALIBRATED)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def residual(b: Builder) -> str:
    """Convolutions with pads and strides, pools of both kinds, a sum of two branches, a mean over all cells."""
    x = b.relu(b.conv("image", 8, pads=[1, 1, 1, 1]))
    x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = b.relu(b.conv(x, 8, pads=[1, 1, 1, 1]))
    x = b.relu(b.node("Add", b.conv(y, 8, pads=[1, 1, 1, 1]), x))
    x = b.node("AveragePool", b.conv(x, 6, 1), kernel_shape=[2, 2], strides=[1, 1])
    x = b.relu(b.conv(x, 6, strides=[1, 2], pads=[1, 0, 0, 1]))
    return b.node("GlobalAveragePool", x)


def save_float(path: Path, network: Callable[[Builder], str], opset: int, batch: int | str) -> Path:
    builder = Builder()
    onnx.save(builder.model(network(builder), HEIGHT, WIDTH, batch=batch, opset=opset), path)
    return path


def save_static(
    folder: Path,
    network: Callable[[Builder], str] = residual,
    *,
    opset: int = 13,
    batch: int | str = "N",
    operators: bool = False,
    activations: str = "QUInt8",
    per_channel: bool = False,
) -> Path:
    """With constant scales: QuantizeLinear and DequantizeLinear around float operators, or QLinear``operators``."""
    path = folder / "static.onnx"
    quantize_static(
        save_float(folder / "float.onnx", network, opset, batch),
        path,
        Pictures(HEIGHT, WIDTH),
        quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
    )
    return path


def save_dynamic(folder: Path, network: Callable[[Builder], str] = residual, *, batch: int | str = "N") -> Path:
    """With scales that are taken from each activation: DynamicQuantizeLinear, ConvInteger, MatMulInteger."""
    path = folder / "dynamic.onnx"
    quantize_dynamic(save_float(folder / "float.onnx", network, 13, batch), path, weight_type=QuantType.QUInt8)
    return path
