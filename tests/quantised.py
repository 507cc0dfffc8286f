"""Quantised networks for tests: tiny ones, quantised by ONNX Runtime's own tools on random pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from networks import CHANNELS, Builder
from onnx import helper
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


def branches(b: Builder) -> str:
    """Depthwise, dilated and grouped convolutions and a pool with pads, side by side."""
    x = b.relu(b.conv("image", 8, pads=[1, 1, 1, 1], strides=[1, 2]))
    parts = [
        b.relu(b.conv(x, 8, group=8, pads=[1, 1, 1, 1])),
        b.conv(x, 5, dilations=[2, 2], pads=[2, 2, 2, 2]),
        b.conv(x, 4, group=2, pads=[1, 1, 1, 1]),
        b.node("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    ]
    x = b.node("Concat", *parts, axis=1, channels=25)
    x = b.node("AveragePool", x, kernel_shape=[3, 3], strides=[2, 1], pads=[1, 0, 1, 2], count_include_pad=1)
    return b.conv(x, 6, (3, 2))


def activated(b: Builder) -> str:
    """Activations that are computed in integers, by a table, and such that are not."""
    x = b.conv("image", 8, 5, pads=[2, 2, 2, 2])
    x = b.node("Mul", x, b.node("Sigmoid", x))
    x = b.node("LeakyRelu", b.conv(x, 6, strides=[2, 2]), alpha=0.1)
    x = b.conv(x, 6, pads=[1, 0, 1, 0])
    x = b.node("Mul", x, b.node("HardSigmoid", x, alpha=0.3))
    return b.conv(b.node("Clip", b.conv(x, 7, 1), b.constant(0.0), b.constant(6.0)), 5, 2)


def gated(b: Builder) -> str:
    """Squeeze and excite: a factor for each channel that is made of the whole map."""
    x = b.relu(b.conv("image", 8, pads=[1, 1, 1, 1]))
    x = b.relu(b.conv(x, 8, strides=[2, 2]))
    gate = b.node("Sigmoid", b.conv(b.relu(b.conv(b.node("GlobalAveragePool", x), 4, 1)), 8, 1))
    return b.conv(b.node("Mul", x, gate), 5)


def normalised(b: Builder) -> str:
    """As DenseNet's: batch normalisation before a convolution, of maps side by side; computed on float32."""
    x = b.conv("image", 6, pads=[1, 1, 1, 1])
    y = b.conv(b.relu(b.batch_norm(x)), 5, pads=[1, 1, 1, 1])
    x = b.node("Concat", x, y, axis=1, channels=11)
    return b.conv(b.relu(b.batch_norm(x)), 5)


def shuffled(b: Builder) -> str:
    """Channels interleaved by reshapes, as ShuffleNet's."""
    x = b.relu(b.conv("image", 6, pads=[1, 1, 1, 1]))
    x = b.node("Reshape", x, b.constant([0, 2, 3, HEIGHT, WIDTH], np.int64))
    x = b.node("Reshape", b.node("Transpose", x, perm=[0, 2, 1, 3, 4]), b.constant([0, 6, HEIGHT, WIDTH], np.int64), channels=6)
    return b.conv(b.relu(b.conv(x, 6, group=3)), 5, 1)


def averaged(b: Builder) -> str:
    """Means of fewer cells at the edges."""
    x = b.relu(b.conv("image", 6, pads=[1, 1, 1, 1]))
    x = b.node("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return b.conv(x, 5)


def scaled(b: Builder) -> str:
    """Sums and products with a number, with one for each channel, and with a map of numbers."""
    x = b.node("Add", b.conv("image", 6, pads=[1, 1, 1, 1]), b.weight(6, 1, 1))
    x = b.node("Mul", b.weight(1, 6, 1, 1), x, channels=6)
    x = b.conv(b.node("Mul", x, b.constant(0.7)), 5)
    return b.conv(b.node("Add", x, b.weight(1, HEIGHT - 2, WIDTH - 2)), 4)


STATIC = (residual, branches, activated, gated, normalised, shuffled, averaged, scaled)


def save_float(path: Path, network: Callable[[Builder], str], opset: int, batch: int | str, last: str | None = None) -> Path:
    """``network``, and behind it the operator ``last``."""
    builder = Builder()
    model = builder.model(network(builder), HEIGHT, WIDTH, batch=batch, opset=opset)
    if last is not None:
        output = model.graph.output[0]
        model.graph.node.append(helper.make_node(last, [output.name], ["probabilities"], "last"))
        output.name = "probabilities"
    onnx.save(model, path)
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
    only: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
    last: str | None = None,
) -> Path:
    """With constant scales: QuantizeLinear and DequantizeLinear around float operators, or QLinear``operators``.

    ``only`` around operators of these types, if any are given, and never around nodes that are ``left_out``.
    """
    path = folder / "static.onnx"
    quantize_static(
        save_float(folder / "float.onnx", network, opset, batch, last),
        path,
        Pictures(HEIGHT, WIDTH),
        quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        op_types_to_quantize=list(only) or None,
        nodes_to_exclude=list(left_out),
    )
    return path


def save_dynamic(folder: Path, network: Callable[[Builder], str] = residual, *, batch: int | str = "N") -> Path:
    """With scales that are taken from each activation: DynamicQuantizeLinear, ConvInteger, MatMulInteger."""
    path = folder / "dynamic.onnx"
    quantize_dynamic(save_float(folder / "float.onnx", network, 13, batch), path, weight_type=QuantType.QUInt8)
    return path


def optimised(path: Path, level: str) -> Path:
    """The file that ONNX Runtime writes of ``path`` after optimising."""
    written, options = path.with_name("optimised.onnx"), ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(written)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return written
