"""What work takes by the model of a machine: passes cost by where their activations lie, and so does the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import Builder, save
from onnx import save as save_onnx

from kcompiler.passes import assumed
from kcompiler.passes.choosing import choice
from kcompiler.passes.choosing.choice import Chooser
from kcompiler.passes.choosing.devices import CPU
from kcompiler.passes.choosing.prices import Priced
from kcompiler.passes.lowering.conv import _gemm_work, _regions_work
from kcompiler.passes.lowering.work import (
    DEFAULT_RATES,
    FLOAT_BYTES,
    Rates,
    Shape,
    Work,
    read_again,
)
from kcompiler.passes.normalising.normalise import normalise
from kcompiler.passes.regions.geometry import Window
from kcompiler.passes.source.load import load
from kcompiler.passes.source.outputs import select_output

RATES = Rates(products=1.0, convolved=1.0, integer=1.0, moved=FLOAT_BYTES, node=1.0, cached=0.6)
IN_CACHE, IN_MEMORY = assumed.CACHE_BYTES // FLOAT_BYTES, assumed.MEMORY_BYTES // FLOAT_BYTES


@pytest.mark.parametrize(
    ("held", "batch", "seconds"),
    [
        (0, 1, 0.4),
        (IN_CACHE / 16, 16, 0.4),
        (IN_CACHE / 16, 64, 0.7),  # half way from the one to the other, by the logarithm
        (IN_MEMORY / 16, 16, 1.0),
        (IN_MEMORY, 128, 1.0),
    ],
)
def test_a_pass_costs_by_what_a_batch_holds(held, batch, seconds):
    assert RATES.seconds(Work(moved=1, held=held), batch) == pytest.approx(seconds)


def test_products_cost_the_same_wherever_activations_lie():
    work = Work(products=2, convolved=3, integer=4, nodes=5)
    assert RATES.seconds(replace(work, held=IN_MEMORY), 128) == RATES.seconds(work, 1) == 14


def test_without_a_batch_a_pass_costs_something_between():
    assert 0.4 < RATES.seconds(Work(moved=1, held=IN_MEMORY)) < 1.0


def test_reading_weights_is_less_than_a_pass_from_memory():
    weights, activations = Work(loaded=1), Work(moved=1, held=IN_MEMORY)
    assert 0 < RATES.seconds(weights, 1) < RATES.seconds(activations, 1)


@pytest.mark.parametrize(
    ("rows", "depth", "times"),
    [
        (IN_CACHE // assumed.SLAB, assumed.SLAB, 0.0),  # the left matrix stays in the cache
        (IN_CACHE // assumed.STRIPE, assumed.SLAB, 0.25),  # twice as large: a quarter of the way to memory
        (IN_MEMORY // assumed.SLAB, assumed.SLAB, 1.0),  # read from memory for every stripe; sums are complete after one slab
        (IN_MEMORY // assumed.STRIPE, 2 * assumed.SLAB, 1.5),  # and for the second slab, sums are read again
        (1, 64 * assumed.SLAB, 0.0),
    ],
)
def test_products_read_again_what_leaves_the_cache(rows, depth, times):
    assert read_again(10.0 * assumed.STRIPE, rows, depth) == pytest.approx(10 * times)


def shape(channels: int, outputs: int, size: int, *, kernel: int = 1, group: int = 1, batch: int = 16) -> Shape:
    window = Window(size, size, kernel, pad=kernel // 2)
    extents = np.array([size])
    return Shape(channels, outputs, group, (window, window), extents, extents, batch, size * size * channels)


@pytest.mark.parametrize(
    ("channels", "outputs", "size", "gemm"),
    [(64, 64, 14, True), (256, 128, 8, True), (1024, 1024, 14, False), (2048, 512, 14, False), (2048, 2048, 10, False)],
)
def test_deep_products_of_many_rows_take_longer_than_convolving_with_both_reorders(channels, outputs, size, gemm):
    """As measured: 0.69 to 0.81 of a Gemm's time where it is not one, 1.09 and more where it is."""
    found = shape(channels, outputs, size)
    seconds = [DEFAULT_RATES.seconds(work(found)) for work in (_gemm_work, _regions_work)]
    assert (seconds[0] < seconds[1]) == gemm


def test_regions_of_depthwise_convolutions_stay_in_the_cache():
    """They run in micro-batches."""
    depthwise, grouped = (_regions_work(shape(512, 512, 28, kernel=3, group=group)) for group in (512, 256))
    assert depthwise.held * 16 * FLOAT_BYTES == assumed.CACHE_BYTES < grouped.held * 16 * FLOAT_BYTES


def chooser(path, tmp_path) -> Chooser:
    source = load(path, None)
    return Chooser(normalise(source, select_output(source, None).tensor, tmp_path), (8, 8), prefer={}, direct=False)


@pytest.mark.parametrize(
    ("seconds", "batch"),
    [
        ({8: 1.00, 16: 1.0, 32: 1.0, 64: 1.0, 128: 1.0}, 16),
        ({8: 0.99, 16: 1.0, 32: 1.0, 64: 1.0, 128: 1.0}, 16),  # not by enough
        ({8: 0.98, 16: 1.0, 32: 1.0, 64: 1.0, 128: 1.0}, 8),
        ({8: 0.98, 16: 1.0, 32: 0.9, 64: 0.9, 128: 0.9}, 32),
        ({8: 2.00, 16: 1.0, 32: 0.96, 64: 0.96, 128: 0.96}, 16),  # not worth the memory
        ({8: 2.00, 16: 1.0, 32: 0.8, 64: 0.7, 128: 0.68}, 64),
    ],
)
def test_a_batch_other_than_the_usual_one_has_to_gain(seconds, batch, tmp_path, monkeypatch):
    found = chooser(save("residual", tmp_path / "model.onnx"), tmp_path)
    assert set(seconds) == {CPU.small_batch, *CPU.batches}
    usual = found._for_batch(16, 0.0, None)
    monkeypatch.setattr(Chooser, "_for_batch", lambda self, size, *_: replace(usual, batch=size, full_seconds=10.0))
    monkeypatch.setattr(Priced, "seconds", lambda self, *_: seconds[self.size])
    monkeypatch.setattr(Chooser, "_parts", lambda *_: (0.0, 1.0))
    assert found.choose(0.0).batch == batch


@pytest.mark.parametrize("width", [64, 112])
def test_wide_maps_are_taken_in_smaller_batches_than_narrow_ones(width, tmp_path, monkeypatch):
    """The same layers: batches of wide maps leave the caches, those of narrow ones share out what each batch takes.

    Not so behind depthwise convolutions, which go through micro-batches that fit a cache, however large the batch is.
    """
    monkeypatch.setattr(choice, "WORTHWHILE", 10.0)

    def batch(channels) -> int:
        builder, x = Builder(), "image"
        for _ in range(3):
            x = builder.relu(builder.conv(x, channels, 1))
            x = builder.relu(builder.conv(x, channels, 3, pads=[1, 1, 1, 1], group=4))
        folder = tmp_path / str(channels)
        folder.mkdir()
        save_onnx(builder.model(builder.node("GlobalAveragePool", x), width, width), folder / "model.onnx")
        return chooser(folder / "model.onnx", folder).choose(0.0).batch

    assert batch(160) < batch(8)
