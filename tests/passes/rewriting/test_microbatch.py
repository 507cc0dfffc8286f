"""Depthwise convolutions of large regions run in micro-batches, with the same outputs for any number of positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from everywhere import assert_exact_everywhere
from map_models import FILL, exported, run
from networks import Builder
from source_file import NEVER_DENSE

from kcompiler.bundle import Bundle
from kcompiler.options import Options
from kcompiler.passes import assumed
from kcompiler.passes.choosing import layouts
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.rewriting.microbatch import microbatches
from kcompiler.pipeline import compile_file
from kcompiler.runtime.bundle.manifest_file import read_manifest
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.measuring.check import random_image, sample_positions

SIZE, PATCH = (22, 26), (5, 4)


def separable(b: Builder, x: str, channels: int, activation: str = "Relu", **attributes: object) -> str:
    """A depthwise convolution and a 1x1 one, an activation behind each."""
    x = b.conv(x, b.channels[x], 3, group=b.channels[x], pads=[1, 1, 1, 1], **attributes)
    return b.node(activation, b.conv(b.node(activation, x), channels, 1))


def network(*, residual: bool = False, activation: str = "Relu") -> onnx.ModelProto:
    b = Builder()
    x = b.relu(b.conv("image", 8, pads=[1, 1, 1, 1]))
    y = separable(b, x, 8, activation)
    y = b.node("Add", x, y) if residual else y
    y = separable(b, separable(b, y, 12, activation, strides=[2, 2]), 16, activation)
    return b.model(y, *SIZE, batch="N")


@pytest.fixture
def small_cache(monkeypatch):
    """So small that the few numbers of a test overflow it."""
    monkeypatch.setattr(assumed, "CACHE_BYTES", 1 << 12)


def compiled(model: onnx.ModelProto, folder: Path) -> Bundle:
    onnx.save(model, folder / "model.onnx")
    return compile_file(folder / "model.onnx", Options(patch=PATCH, dense_share=NEVER_DENSE))


def depthwise(folder: Path) -> int:
    """Depthwise convolutions of the compiled model."""
    incremental = onnx.load(folder / "incremental.onnx", load_external_data=False)
    return sum(attribute.name == "group" and attribute.i > 1 for node in incremental.graph.node for attribute in node.attribute)


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"activation": "HardSigmoid"}])
@pytest.mark.parametrize("extents", ["tight", "static"])
def test_microbatches_are_exact_everywhere(tmp_path, small_cache, options, extents):
    onnx.save(network(**options), tmp_path / "model.onnx")
    assert_exact_everywhere(tmp_path / "model.onnx", Options(patch=PATCH, extents=extents, dense_share=NEVER_DENSE))


@pytest.mark.parametrize("residual", [False, True])
def test_any_number_of_positions_gives_the_same_numbers(tmp_path, monkeypatch, residual):
    image, positions = random_image((3, *SIZE), 0), sample_positions(SIZE, PATCH, 80, 0)
    found = {}
    for cache in (1 << 12, 1 << 30):
        monkeypatch.setattr(assumed, "CACHE_BYTES", cache)
        bundle = compiled(network(residual=residual), tmp_path)
        explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=True)
        baseline = explainer.exact.baseline(image)
        found[cache] = [explainer.exact.evaluate(baseline, positions[:count]) for count in (1, 2, 5, 16, 17, 80)]
        assert (depthwise(bundle.folder) > 3) == (cache == 1 << 12), "one for each micro-batch, or three in all"
    for parts, whole in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("extents", ["tight", "static"])
def test_no_split_is_wider_than_devices_take(tmp_path, small_cache, extents):
    """Of places, which are many in a network of many sizes of maps, and of sixteen micro-batches."""
    onnx.save(network(), tmp_path / "model.onnx")
    bundle = compile_file(tmp_path / "model.onnx", Options(patch=PATCH, extents=extents, dense_share=NEVER_DENSE))
    incremental = onnx.load(bundle.folder / "incremental.onnx", load_external_data=False)
    widths = [len(node.output) for node in incremental.graph.node if node.op_type == "Split"]
    assert depthwise(bundle.folder) > assumed.WIDEST_SPLIT, "many micro-batches"
    assert max(widths) <= assumed.WIDEST_SPLIT
    assert len(widths) > 3, "more than would do if they were as wide as they could be"


def test_chains_end_where_regions_are_rows(tmp_path, small_cache):
    """What is no chain of Gather, depthwise and further convolutions stays as it is: here the maps go on to a pool."""
    b = Builder()
    x = b.relu(b.conv("image", 8, pads=[1, 1, 1, 1]))
    x = b.conv(x, 8, 3, group=8, pads=[1, 1, 1, 1])
    model = b.model(b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), *SIZE, batch="N")
    assert depthwise(compiled(model, tmp_path).folder) == 1


@pytest.mark.parametrize(("held", "count"), [(1.0, 1), (2.9, 4), (8.2, 8), (1e4, 16), (1e-3, 1), (0.0, 1), (-1.0, 1)])
def test_microbatches_fit_the_cache(held, count):
    assert layouts.micro_batches(held * assumed.CACHE_BYTES) == count


def test_depthwise_convolutions_that_often_miss_the_patch(tmp_path):
    """A patch of one column under a stride of two: the mean extent is a half."""
    b = Builder()
    x = b.conv("image", 3, 1, group=3, strides=[1, 2])
    onnx.save(b.model(x, 7, 8, batch="N"), tmp_path / "model.onnx")
    assert_exact_everywhere(tmp_path / "model.onnx", Options(patch=(2, 1), dense_share=NEVER_DENSE))


@pytest.mark.parametrize("count", [4, 8, 16])
def test_microbatches_are_as_equal_as_can_be_and_of_no_more_than_there_is(count):
    """Nothing is repeated to fill them: a single position is computed once."""
    emit = Emitter(gs.Graph(opset=20))
    asked = emit.input("positions", np.int64, ["batch", 2])
    emit.graph.outputs = [microbatches(emit, asked, count)[0].sizes]
    emit.graph.outputs[0].dtype = np.dtype(np.int64)
    model = gs.export_onnx(emit.graph.cleanup().toposort(), do_type_check=False, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for number in range(1, 40):
        (sizes,) = session.run(None, {"positions": np.zeros((number, 2), np.int64)})
        assert (len(sizes), sizes.sum()) == (count, number)
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("drill_down", [None, (4, 0.3)])
def test_map_models_fill_micro_batches_and_have_the_bits_of_the_driver(tmp_path, small_cache, drill_down):
    """The batches of a map model, its first one of the uncovered image alone, have a position for each micro-batch or more."""
    bundle = compiled(network(), tmp_path).save(tmp_path / "model.kc")
    assert read_manifest(bundle).exact.microbatches == 16
    opened, card, explainer = exported(bundle, stride=3, drill_down=drill_down)
    image = random_image((3, *SIZE), 1)
    plan = SamplingPlan() if drill_down is None else SamplingPlan(method="drill-down", step=drill_down[0], share=drill_down[1])
    expected = explainer.explain(image, stride=3, fill=FILL, quality=plan)
    known = None if drill_down is None else np.full(expected.scores.shape, np.nan, np.float32)
    found = run(opened, image, batches=(0, len(card.batches)), known=known)
    np.testing.assert_array_equal(found["map"], expected.scores)
    assert int(found["class"][0]) == expected.target
