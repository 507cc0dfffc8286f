"""Threshold clipping: regions capped around the patch keep cached values outside, whatever computes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from capped import PATCH, capped_by_definition, capped_by_hand
from networks import NETWORKS, save
from source_file import NEVER_DENSE, positions_of

import kcompiler
from kcompiler.options import Approximation, Options
from kcompiler.passes.plan import FROZEN, make_plan
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.pipeline import analyse, compile_file
from kcompiler.runtime.bundle.manifest import FILES, MANIFEST
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.images import fill_image
from kcompiler.runtime.measuring.check import sample_positions

SHAPE = (20, 24)


@pytest.mark.parametrize("tau", [0.8, 0.5, 0.25])
@pytest.mark.parametrize("name", NETWORKS)
def test_capped_regions_against_full_maps_by_hand(name, tau, tmp_path):
    model = save(name, tmp_path / "model.onnx", *SHAPE)
    options = Options(patch=PATCH, dense_share=NEVER_DENSE, approximations=(Approximation(Thresholds(tau)),))
    bundle = compile_file(model, options)
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=True)
    if len(explainer.engines) == 1:
        pytest.skip("no region is larger than that")
    engine = explainer.engines[f"tau{tau:g}"]
    analysed = analyse(model, options, tmp_path)
    plan = make_plan(analysed.graph, PATCH, NEVER_DENSE, thresholds=Thresholds(tau))
    image = np.random.default_rng(2).standard_normal((1, 3, *SHAPE), dtype=np.float32)
    fill = fill_image((0.7, -1.2, 3.0), (3, *SHAPE))
    positions = np.concatenate([sample_positions(SHAPE, PATCH, 12, 0), [(1 - PATCH[0], 3), (SHAPE[0] - 1, SHAPE[1] - 2)]])
    expected = capped_by_hand(analysed.graph, plan, image, fill, positions)
    found = engine.evaluate_all(engine.baseline(image, (0.7, -1.2, 3.0)), positions)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def by_definition(model, shares, size, positions):
    """Positions, and what the file's own nodes make of them, capped at ``shares`` of their maps; and the image and the fill."""
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(onnx.load(model)))
    image = np.random.default_rng(2).standard_normal((1, 3, *size), dtype=np.float32)
    fill = fill_image((0.7, -1.2, 3.0), (3, *size))
    return image, fill, *capped_by_definition(graph, shares, image, fill, positions)


@pytest.mark.parametrize("tau", [0.4, 0.33, 0.2, 0.1])
@pytest.mark.parametrize("name", ["chain", "residual", "strided", "dilated"])
def test_regions_are_a_share_of_each_map_around_the_patch(name, tau, tmp_path):
    """What lies outside of round(tau * height) rows and round(tau * width) columns of a map has its cached value."""
    model = save(name, tmp_path / "model.onnx", *SHAPE)
    options = Options(patch=PATCH, dense_share=NEVER_DENSE, approximations=(Approximation(Thresholds(tau)),))
    bundle = compile_file(model, options)
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    everywhere = positions_of(SHAPE, PATCH, cut_off=True)
    image, fill, positions, expected = by_definition(model, lambda node: tau, SHAPE, everywhere)
    assert len(positions) > len(everywhere) / 8, "where two parts are as near, either is right"
    engine = explainer.engines[f"tau{tau:g}"]
    found = engine.evaluate_all(engine.baseline(image, fill), positions)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    exact = explainer.exact.evaluate_all(explainer.exact.baseline(image, fill), positions)
    assert np.abs(expected - exact).max() > 1e-2, "it does make a difference"


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("name", ["gated", "patch_into_wide_map"])
def test_frozen_gates_against_full_maps_by_hand(name, tau, tmp_path):
    """Exact but for the gates, which are those of the uncovered image; everything up to the head is incremental."""
    model, thresholds = save(name, tmp_path / "model.onnx", *SHAPE), Thresholds(tau, freeze_gates=True)
    options = Options(patch=PATCH, dense_share=NEVER_DENSE, approximations=(Approximation(thresholds),))
    bundle = compile_file(model, options)
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=True)
    engine = list(explainer.engines.values())[1]
    assert engine.variant.frozen_gates >= 1
    assert engine.variant.name == ("gates" if tau == 1 else "tau0.5.gates")
    analysed = analyse(model, options, tmp_path)
    plan = make_plan(analysed.graph, PATCH, NEVER_DENSE, thresholds=thresholds)
    dense = {decision.operator for decision in plan.decisions if not decision.incremental and decision.reason != FROZEN}
    assert dense == {"Flatten", "Gemm"}
    image = np.random.default_rng(2).standard_normal((1, 3, *SHAPE), dtype=np.float32)
    positions = sample_positions(SHAPE, PATCH, 12, 0)
    expected = capped_by_hand(analysed.graph, plan, image, fill_image(0.7, (3, *SHAPE)), positions)
    found = engine.evaluate_all(engine.baseline(image, 0.7), positions)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    exact = explainer.exact.evaluate_all(explainer.exact.baseline(image, 0.7), positions)
    assert np.abs(found - exact).max() > 1e-3, "it does make a difference"


def test_models_without_gates_have_no_such_variant(tmp_path):
    bundle = kcompiler.compile(save("residual", tmp_path / "model.onnx", *SHAPE), patch=PATCH, freeze_gates=True)
    assert [variant.name for variant in bundle.manifest.variants] == ["exact"]


def test_no_cap_is_the_identical_graph(tmp_path):
    """A threshold that caps nothing adds no variant; as the plan of a variant it is the exact plan."""
    model = save("residual", tmp_path / "model.onnx", *SHAPE)
    bundle = kcompiler.compile(model, patch=PATCH, thresholds=[1.0])
    assert [variant.name for variant in bundle.manifest.variants] == ["exact"]
    assert sorted(path.name for path in bundle.folder.iterdir()) == sorted([*FILES, MANIFEST])
    graph = analyse(model, Options(patch=PATCH), tmp_path).graph
    exact, capped = make_plan(graph, PATCH), make_plan(graph, PATCH, thresholds=Thresholds(1.0))
    for name, region in exact.regions.items():
        for axis in ("y", "x"):
            one, other = getattr(region, axis), getattr(capped.regions[name], axis)
            np.testing.assert_array_equal(one.start, other.start)
            np.testing.assert_array_equal(one.stop, other.stop)


def test_variants_share_the_weights(tmp_path):
    model = save("residual", tmp_path / "model.onnx", 32, 32)
    alone = compile_file(model, Options(patch=(4, 4), dense_share=NEVER_DENSE, convolution="direct"))
    approximations = tuple(Approximation(Thresholds(tau)) for tau in (0.2, 0.1))
    several = compile_file(
        model, Options(patch=(4, 4), dense_share=NEVER_DENSE, convolution="direct", approximations=approximations)
    )
    assert [variant.name for variant in several.manifest.variants] == ["exact", "tau0.2", "tau0.1"]
    sizes = [(bundle.folder / "weights.bin").stat().st_size for bundle in (alone, several)]
    assert sizes[0] == sizes[1]
    kcompiler.load(several.save(tmp_path / "several.kc"))


@pytest.mark.parametrize("operator", ["Conv", "Relu", "MaxPool"])
def test_thresholds_by_node(operator, tmp_path):
    """Capped is the region of the node alone; what reads it takes in all that it leaves."""
    model, size, share = save("chain", tmp_path / "model.onnx", 32, 32), (32, 32), 0.12
    node = next(node.name for node in onnx.load(model).graph.node if node.op_type == operator)
    approximation = Approximation(Thresholds(nodes={node: share}))
    bundle = compile_file(model, Options(patch=PATCH, dense_share=NEVER_DENSE, approximations=(approximation,)))
    (_, variant) = bundle.manifest.variants
    assert variant.node_thresholds == {node: share}
    assert variant.threshold == 1
    whole = positions_of(size, PATCH)
    image, fill, positions, expected = by_definition(model, lambda name: share if name == node else 1.0, size, whole)
    explainer, plan = kcompiler.load(bundle), kcompiler.SamplingPlan(variant=variant.name)
    found = explainer.explain(image, stride=1, target=3, fill=fill, quality=plan)
    assert not found.exact
    assert found.complete
    untied = (whole[:, None] == positions).all(axis=-1).any(axis=1)
    assert untied.mean() > 0.2, "where two parts are as near, either is right"
    np.testing.assert_allclose(found.scores.ravel()[untied], expected[:, 3], rtol=1e-4, atol=1e-5)
    exact = explainer.explain(image, stride=1, target=3, fill=fill)
    assert np.abs(exact.scores - found.scores).max() > 1e-2, "it does make a difference"


@pytest.mark.parametrize("tau", [0.0, -0.5, 1.5, float("nan")])
def test_thresholds_out_of_range_are_refused(tau, tmp_path):
    with pytest.raises(kcompiler.UsageError, match="above 0, up to 1"):
        kcompiler.compile(save("chain", tmp_path / "model.onnx"), patch=4, thresholds=[tau])


def test_every_threshold_has_a_file_name_of_its_own(tmp_path):
    model = save("chain", tmp_path / "model.onnx", 32, 32)
    shares = (1e-5, 1 / 3, 0.333333, 0.25)
    bundle = kcompiler.compile(model, patch=4, thresholds=(*shares, 0.25)).save(tmp_path / "model.kc")
    variants = kcompiler.load(bundle).manifest.variants
    assert [variant.threshold for variant in variants] == [1, *shares]
    assert len({variant.incremental for variant in variants}) == len({variant.name for variant in variants}) == 5
