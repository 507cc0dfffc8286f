"""Scales that a 1x1 convolution takes into its weights: through a Relu, of both signs, down to nothing, far from zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from everywhere import assert_exact_everywhere
from networks import Builder, save
from source_file import NEVER_DENSE

from kcompiler.options import Options
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.scaled import Scaled
from kcompiler.pipeline import compile_file

CHANNELS = 6
SCALES = {
    "both signs": ([0.5, -1, 2, -1e-3, 7, -1], [1, -1, 0, 2, 0.5, -3]),
    "positive": ([0.5, 1, 2, 1e-3, 7, 1], [1, -1, 0, 2, 0.5, -3]),
    "negative": ([-0.5, -1, -2, -0.1, -7, -1], [1, -1, 0, 2, 0.5, -3]),
    "some at nothing": ([0, 1, -1e-38, 1e-40, -1, 2], [1, 1, -1, 2, 1, -1]),
}


@pytest.mark.parametrize("scale", SCALES)
def test_clipped_rows_scaled_are_the_relu_of_scaled_rows(scale):
    factor, offset = (np.array(numbers, np.float64) for numbers in SCALES[scale])
    graph = gs.Graph(opset=18)
    emit = Emitter(graph)
    rows = emit.input("rows", np.float32, ["n", CHANNELS])
    once = Scaled.plain(rows, CHANNELS).then(2.0, 1.0)
    clipped = once.then(factor / 2, offset - factor / 2).clipped(emit)
    output = emit("Identity", clipped.rows)
    output.dtype, graph.outputs = np.dtype(np.float32), [output]
    numbers = np.random.default_rng(0).standard_normal((50, CHANNELS)).astype(np.float32) * 3
    session = onnxruntime.InferenceSession(gs.export_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"rows": numbers})
    expected = np.maximum(factor * numbers + offset, 0)
    np.testing.assert_allclose(clipped.factor * found + clipped.offset, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("factor", "offset"), [(1e-29, 1e2), (-1e-25, 1e6)])
def test_bounds_that_overflow_are_not_told(factor, offset):
    emit = Emitter(gs.Graph(opset=18))
    scaled = Scaled.plain(emit.input("rows", np.float32, ["n", 2]), 2)
    assert scaled.then(np.array([1, factor]), np.array([1, offset])).clipped(emit) is None


@pytest.mark.parametrize("numbers", [(np.inf, 0), (1e39, 0), (1, np.nan)], ids=str)
def test_scales_that_overflow_are_not_told(numbers):
    rows = gs.Variable("rows")
    assert Scaled.plain(rows, 2).then(*(np.array([1, number]) for number in numbers)) is None


def taken_into_weights(model: Path, options: Options) -> tuple[int, ...]:
    """Channels of each convolution that scales its weights: factors are the only columns of floats in the compiled model."""
    bundle = compile_file(model, options)
    weights = onnx.load(bundle.folder / "incremental.onnx", load_external_data=False).graph.initializer
    factors = [one for one in weights if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) == 2 and one.dims[1] == 1]
    return tuple(sorted(one.dims[0] for one in factors))


def network(scale: str, form: str, reader: str) -> onnx.ModelProto:
    """Channels scaled in the form of some exporter, and what reads the Relu behind."""
    builder = Builder()
    x = builder.conv("image", CHANNELS, strides=[2, 2], pads=[1, 1, 1, 1])
    x = builder.node("Tanh", x)
    factor, shift = (np.array(numbers, np.float64) for numbers in SCALES[scale])
    mean, variance = (builder.rng.standard_normal(CHANNELS), builder.rng.random(CHANNELS) + 0.5)
    given = [factor * np.sqrt(variance + 1e-5), shift + factor * mean, mean, variance]
    if form == "normalisation":
        x = builder.node("BatchNormalization", x, *(builder.constant(numbers) for numbers in given))
    else:
        x = builder.node("Mul", x, builder.constant(factor.reshape(1, -1, 1, 1)))
        x = builder.node("Add", builder.constant(shift.reshape(-1, 1, 1)), x, channels=CHANNELS)
    x = builder.relu(x)
    read = {
        "1x1": lambda: builder.conv(x, 5, 1),
        "1x1 without bias": lambda: builder.conv(x, 5, 1, bias=False),
        "strided": lambda: builder.conv(x, 5, 1, strides=[2, 2]),
        "3x3": lambda: builder.conv(x, 5, pads=[1, 1, 1, 1]),
        "1x1 and root": lambda: builder.node("Add", builder.conv(x, CHANNELS, 1), builder.node("Sqrt", x)),
    }
    return builder.model(read[reader](), 20, 24)


@pytest.mark.parametrize("reader", ["1x1", "1x1 without bias", "strided", "3x3", "1x1 and root"])
@pytest.mark.parametrize("form", ["normalisation", "product and sum"])
@pytest.mark.parametrize("scale", SCALES)
def test_what_reads_scaled_channels_is_exact(scale, form, reader, tmp_path):
    onnx.save(network(scale, form, reader), tmp_path / "model.onnx")
    options = Options(patch=(4, 6), dense_share=NEVER_DENSE, prefer={"Conv": "gemm"})
    assert_exact_everywhere(tmp_path / "model.onnx", options)
    assert taken_into_weights(tmp_path / "model.onnx", options) == (CHANNELS,) * (
        reader in ("1x1", "1x1 without bias", "1x1 and root")
    )


def test_every_scale_of_a_dense_block_is_taken(tmp_path):
    model = save("densely_connected", tmp_path / "model.onnx", 20, 24)
    options = Options(patch=(4, 6), dense_share=NEVER_DENSE, prefer={"Conv": "gemm"})
    assert taken_into_weights(model, options) == (4, 7, 10)


def test_scales_of_channels_far_from_zero_are_taken_and_exact(tmp_path):
    """Whose mean is a thousand times their deviation."""
    builder = Builder()
    weights, means = builder.weight(32, 3, 3, 3, scale=0.2), builder.rng.standard_normal(32) * 1000
    x = builder.node("Conv", "image", weights, builder.constant(means), channels=32, pads=[1, 1, 1, 1])
    x = builder.node("Abs", x)
    given = [np.ones(32), np.zeros(32), abs(means), np.ones(32)]
    x = builder.relu(builder.node("BatchNormalization", x, *(builder.constant(numbers) for numbers in given)))
    onnx.save(builder.model(builder.relu(builder.conv(x, 16, 1)), 12, 12), tmp_path / "model.onnx")
    options = Options(patch=(4, 4), dense_share=NEVER_DENSE, prefer={"Conv": "gemm"})
    assert_exact_everywhere(tmp_path / "model.onnx", options)
    assert taken_into_weights(tmp_path / "model.onnx", options) == (32,)


def test_infinities_stay_what_they_are(tmp_path):
    """Clipped channels of one sign are not clipped at all on the other side."""
    builder = Builder()
    x = builder.node("Log", builder.relu(builder.conv("image", 4, strides=[2, 2])))
    x = builder.node("Mul", x, builder.constant([[[0.1]], [[-0.1]], [[0.2]], [[-0.3]]]))
    x = builder.relu(builder.node("Add", x, builder.constant([[[1.0]], [[-0.1]], [[0.2]], [[0.5]]])))
    onnx.save(builder.model(builder.conv(x, 5, 1), 12, 12, classes=None), tmp_path / "model.onnx")
    assert_exact_everywhere(tmp_path / "model.onnx", Options(patch=(4, 4), dense_share=NEVER_DENSE, prefer={"Conv": "gemm"}))


def test_offsets_do_not_go_behind_the_products(tmp_path):
    """Without a Relu between them nothing centres the rows, so the convolution takes them as they are scaled."""
    builder = Builder()
    x = builder.batch_norm(builder.node("Abs", builder.conv("image", 4, pads=[1, 1, 1, 1])))
    onnx.save(builder.model(builder.relu(builder.conv(x, 5, 1)), 12, 12), tmp_path / "model.onnx")
    options = Options(patch=(4, 4), dense_share=NEVER_DENSE, prefer={"Conv": "gemm"})
    assert taken_into_weights(tmp_path / "model.onnx", options) == ()
