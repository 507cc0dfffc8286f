"""Compiled tiny networks equal the file that they were compiled from, and full inference, at every position."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from everywhere import assert_exact_everywhere
from networks import NETWORKS, Builder, save
from source_file import NEVER_DENSE

from kcompiler.options import Options
from kcompiler.passes import assumed
from kcompiler.passes.lowering.select import LOWERINGS
from kcompiler.pipeline import compile_file
from kcompiler.runtime.exactness import compare
from kcompiler.runtime.inputs.positions import make_grid

PATCHES = [(1, 1), (5, 5), (4, 7)]
IMAGES = [(20, 20), (17, 24)]


def every_third(*numbers: int) -> tuple[pytest.MarkDecorator, ...]:
    """Marks of a case by its places along several lists: a third runs by default, in which each entry of each list is."""
    return () if sum(numbers) % 3 == 0 else (pytest.mark.slow,)


EVERYWHERE = [
    pytest.param(name, patch, image, extents, marks=() if extents == "tight" else every_third(first, second, third))
    for first, name in enumerate(NETWORKS)
    for second, patch in enumerate(PATCHES)
    for third, image in enumerate(IMAGES)
    for extents in ("tight", "static")
]


@pytest.mark.parametrize(("name", "patch", "image", "extents"), EVERYWHERE)
def test_every_position_equals_the_source_file(name, patch, image, extents, tmp_path):
    model = save(name, tmp_path / "model.onnx", *image)
    device = "cuda" if (extents, image) == ("tight", IMAGES[-1]) and patch != (1, 1) else "cpu"
    assert_exact_everywhere(model, Options(patch=patch, extents=extents, dense_share=NEVER_DENSE, device=device))


CHOICES = [
    (operator, lowering.name)
    for operator, known in LOWERINGS.items()
    if len(known) > 1
    for lowering in known
    if not lowering.integer and (operator, lowering.name) != ("BatchNormalization", "operator")  # for what is quantised behind
]
COARSEST = "winograd 7"
"""Where it is told to be taken it may round more than a model may: verification is there to take another."""


def widens(graph: onnx.GraphProto) -> bool:
    """Whether a convolution with several taps has twice as many outputs as inputs."""
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    weights = [shapes[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    return any(outputs >= 2 * inputs and max(taps) > 1 for outputs, inputs, *taps in weights)


LOWERED = [
    pytest.param(name, operator, lowering, marks=every_third(first, second) if operator == "Conv" else ())  # few have others
    for first, name in enumerate(NETWORKS)
    for second, (operator, lowering) in enumerate(CHOICES)
]


@pytest.mark.parametrize(("name", "operator", "lowering"), LOWERED)
def test_every_lowering_is_exact_where_it_applies(name, operator, lowering, tmp_path, monkeypatch):
    if lowering == COARSEST:
        monkeypatch.setattr(compare, "OUTPUT_SHARE", 4 * compare.OUTPUT_SHARE)
    model = save(name, tmp_path / "model.onnx", 20, 24)
    graph = onnx.load(model).graph
    if operator not in {node.op_type for node in graph.node}:
        pytest.skip(f"no {operator} in it")
    if lowering.endswith("of values") and not widens(graph):
        pytest.skip("no convolution to twice as many channels")
    explainer = assert_exact_everywhere(model, Options(patch=(4, 6), dense_share=NEVER_DENSE, prefer={operator: lowering}))
    used = {node.lowering for node in explainer.manifest.report.nodes if node.operator == operator and node.incremental}
    assert lowering in used or (lowering.startswith("winograd") and name in ("kernel_below_stride", "dilated"))


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("lowering", ["regions", "window mean", "tiled mean 2"])
def test_dilated_average_pools_are_exact(lowering, counted, tmp_path):
    """Which the operator has from opset 19 on."""
    builder = Builder()
    x = builder.relu(builder.conv("image", 4, pads=[1, 1, 1, 1]))
    pool = {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [2, 1, 1, 0], "count_include_pad": counted}
    x = builder.conv(builder.node("AveragePool", x, **pool), 5)
    onnx.save(builder.model(x, 20, 24, opset=19), tmp_path / "model.onnx")
    options = Options(patch=(4, 6), dense_share=NEVER_DENSE, prefer={"AveragePool": lowering})
    explainer = assert_exact_everywhere(tmp_path / "model.onnx", options)
    assert lowering in {node.lowering for node in explainer.manifest.report.nodes}


@pytest.mark.parametrize("name", NETWORKS)
def test_reading_a_small_part_of_a_map_is_exact(name, tmp_path, monkeypatch):
    """As of maps that are large beside the regions, which tiny networks have none of."""
    monkeypatch.setattr(assumed, "COPIES", 0)
    model = save(name, tmp_path / "model.onnx", 20, 24)
    assert_exact_everywhere(model, Options(patch=(4, 6), dense_share=NEVER_DENSE, convolution="direct"))


def test_tiles_of_a_small_part_of_a_map_are_exact(tmp_path, monkeypatch):
    builder = Builder()
    x = builder.relu(builder.conv("image", 8, pads=[1, 1, 1, 1]))
    onnx.save(builder.model(builder.conv(x, 16, pads=[1, 1, 0, 1]), 20, 24), tmp_path / "model.onnx")
    options = Options(patch=(4, 6), dense_share=NEVER_DENSE, prefer={"Conv": "winograd 3 of values"})
    copies, sizes = [], []
    for passes in (assumed.COPIES, 0):
        monkeypatch.setattr(assumed, "COPIES", passes)
        report = assert_exact_everywhere(tmp_path / "model.onnx", options).manifest.report
        copies.append([node.copies for node in report.nodes if node.operator == "Conv"])
        sizes.append(report.incremental_operators["Gather"])
    assert copies == [[False, False], [False, True]] or copies == [[False, False], [True, True]], "as the report tells"
    assert sizes[0] < sizes[1], "cells of the map are gathered before rows are joined on"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("name", ["chain", "residual", "concat", "depthwise"])
def test_dense_tail_may_start_anywhere(name, share, tmp_path):
    model = save(name, tmp_path / "model.onnx")
    explainer = assert_exact_everywhere(model, Options(patch=(5, 5), dense_share=share))
    dense = [node for node in explainer.manifest.report.nodes if not node.incremental]
    assert share > 0 or len(dense) == len(explainer.manifest.report.nodes)


def test_patch_as_large_as_the_image(tmp_path):
    assert_exact_everywhere(save("residual", tmp_path / "model.onnx"), Options(patch=(20, 20), dense_share=NEVER_DENSE))


def test_bits_do_not_depend_on_the_batch_a_position_runs_in(tmp_path):
    """With static extents every position is computed alike, alone or among others."""
    model = save("chain", tmp_path / "model.onnx")
    explainer = assert_exact_everywhere(model, Options(patch=(5, 5), extents="static", dense_share=NEVER_DENSE))
    image = np.random.default_rng(3).standard_normal((3, 20, 20), dtype=np.float32)
    positions = make_grid((20, 20), (5, 5), 3).positions
    together = explainer.outputs(image, positions)
    alone = np.concatenate([explainer.outputs(image, position[None]) for position in positions])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_report_says_that_a_global_average_is_updated(tmp_path):
    model = save("global_average_head", tmp_path / "model.onnx")
    explainer = assert_exact_everywhere(model, Options(patch=(4, 4), dense_share=NEVER_DENSE))
    (pool,) = [node for node in explainer.manifest.report.nodes if node.operator == "GlobalAveragePool"]
    assert "updated by what changed" in pool.reason
    assert "ReduceSum" in explainer.manifest.report.incremental_operators, "of the lines of the cached map, and of the region"


INCREMENTAL_TO_THE_HEAD = [
    "normalised_channels", "channels_last_block", "layer_normalisation_by_hand", "shuffled_channels", "padded_and_cropped",
    "resized", "blocks", "comparisons", "norm_pools", "activations", "converted_channels",
]  # fmt: skip


@pytest.mark.parametrize("name", INCREMENTAL_TO_THE_HEAD)
def test_everything_up_to_the_head_is_incremental(name, tmp_path):
    """A rule that gives up is exact all the same, only dense."""
    model = save(name, tmp_path / "model.onnx", 20, 24)
    bundle = compile_file(model, Options(patch=(4, 6), dense_share=NEVER_DENSE))
    assert {node.operator for node in bundle.report.nodes if not node.incremental} == {"Flatten", "Gemm"}


def test_rows_leave_the_order_of_tiles_before_they_get_wider(tmp_path):
    """So that the widest rows of a residual block are added as they are, and none are computed of what overhangs."""
    model = save("bottleneck", tmp_path / "model.onnx", 20, 24)
    prefer = {"Conv": "gemm", "n4": "winograd 3", "n11": "winograd 4"}
    bundle = compile_file(model, Options(patch=(4, 6), dense_share=NEVER_DENSE, prefer=prefer))
    graph = onnx.load(bundle.folder / "incremental.onnx").graph
    made_by = {name: node for node in graph.node for name in node.output}
    added = [made_by[name] for node in graph.node if node.op_type == "Add" for name in node.input if name in made_by]
    widened = [node for node in added if node.op_type == "Gemm"]
    assert [made_by[node.input[0]].op_type for node in widened] == ["Gather", "Gather"]
