"""Thresholds by node: any incremental node may have one of its own, and a name that means no such node is refused."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from capped import PATCH, capped_by_hand
from networks import NETWORKS, Builder, save
from source_file import NEVER_DENSE

import kcompiler
from kcompiler.options import Approximation, Options
from kcompiler.passes.plan import make_plan
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.pipeline import analyse, compile_file
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.images import fill_image
from kcompiler.runtime.measuring.check import sample_positions

FILL = (0.7, -1.2, 3.0)
SHAPE = (20, 24)
SHARE = 0.2
EVERY_KIND = ("residual", "concat", "pre_activation", "channels_last_block", "comparisons", "mean_of_cells", "shuffled_channels")


def variants_against_hand(model, scratch, thresholds: list[Thresholds]) -> int:
    """Compiles all at once and compares each variant with full maps by hand; how many variants there were."""
    options = Options(patch=PATCH, dense_share=NEVER_DENSE, approximations=tuple(map(Approximation, thresholds)))
    bundle = compile_file(model, options)
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=True)
    graph = analyse(model, options, scratch).graph
    image = np.random.default_rng(2).standard_normal((1, 3, *SHAPE), dtype=np.float32)
    fill = fill_image(FILL, (3, *SHAPE))
    positions = np.concatenate([sample_positions(SHAPE, PATCH, 8, 0), [(1 - PATCH[0], 3), (SHAPE[0] - 1, SHAPE[1] - 2)]])
    for one in thresholds:
        if (name := Approximation(one).name) not in explainer.engines:
            continue
        engine = explainer.engines[name]
        expected = capped_by_hand(graph, make_plan(graph, PATCH, NEVER_DENSE, thresholds=one), image, fill, positions)
        found = engine.evaluate_all(engine.baseline(image, FILL), positions)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=str(one))
    return len(explainer.engines) - 1


def incremental_nodes(model, scratch) -> list[str]:
    """Names, of those in the file: a node that an exchange makes is none where the nodes that it is made of are named too."""
    names = {node.name for node in onnx.load(model).graph.node}
    plan = analyse(model, Options(patch=PATCH, dense_share=NEVER_DENSE), scratch).plan
    return [decision.node for decision in plan.decisions if decision.incremental and decision.node in names]


@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_threshold_of_each_node_alone(name, tmp_path):
    """Convolutions, pools, pointwise nodes, merges, concatenations and what works along channels."""
    model = save(name, tmp_path / "model.onnx", *SHAPE)
    nodes = incremental_nodes(model, tmp_path)
    assert variants_against_hand(model, tmp_path, [Thresholds(nodes={node: SHARE}) for node in nodes]) > len(nodes) / 2


@pytest.mark.parametrize("name", NETWORKS)
def test_thresholds_that_differ_from_node_to_node(name, tmp_path):
    model = save(name, tmp_path / "model.onnx", *SHAPE)
    nodes = incremental_nodes(model, tmp_path)
    shares = np.random.default_rng(5).choice([0.15, 0.3, 0.5, 1.0], len(nodes)).tolist()
    variants_against_hand(model, tmp_path, [Thresholds(nodes=dict(zip(nodes, shares, strict=True)))])


def test_one_that_caps_nothing_has_no_variant_and_that_is_said(tmp_path):
    builder = Builder()
    bundle = kcompiler.compile(builder.model(folded(builder), *SHAPE), patch=PATCH, thresholds=[{"n2": 1.0}, {"n2": 0.9}])
    assert [variant.name for variant in bundle.manifest.variants] == ["exact"]
    (note,) = bundle.report.notes
    assert re.fullmatch(r"no variant tau1\.\w{8}, tau1\.\w{8}: its regions would be the exact variant's", note)


def folded(b: Builder) -> str:
    """n1, a batch normalisation, goes into the convolution before it."""
    return b.relu(b.batch_norm(b.conv("image", 4)))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("m2", r"no node 'm2'; nodes with a region are n2, "),
        ("n3", r"node n3 is not recomputed by regions \(.*Flatten"),
        ("n1", r"node n1 of the file was folded into its neighbours"),
    ],
)
def test_names_of_no_region_are_refused(node, message, tmp_path):
    builder = Builder()
    model = builder.model(folded(builder), *SHAPE)
    with pytest.raises(kcompiler.UsageError, match=message):
        kcompiler.compile(model, patch=PATCH, thresholds=[{node: 0.3}])
