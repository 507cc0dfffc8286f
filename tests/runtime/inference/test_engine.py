"""The engine: what its batches hold, how they share threads and sessions, and that they give what each gives alone."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import Builder, save

import kcompiler
from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.inference.engine import SIDE_BY_SIDE
from kcompiler.runtime.inference.variant_sessions import VariantSessions
from kcompiler.runtime.inputs.images import fill_image
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import random_image


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return kcompiler.compile(save("residual", tmp_path_factory.mktemp("model") / "model.onnx", 24, 28), patch=(4, 6))


@pytest.fixture
def image():
    return np.random.default_rng(5).standard_normal((3, 24, 28), dtype=np.float32)


def test_memory_bounds_the_batch(bundle):
    fixed, each = bundle.report.bytes_per_batch, bundle.report.bytes_per_position
    assert fixed == 4 * 4 * 24 * 28, "the largest cached activation is copied with each batch"
    assert kcompiler.load(bundle, memory=fixed + 3 * each).batch == 3
    with pytest.raises(kcompiler.UsageError, match="allow more"):
        kcompiler.load(bundle, memory=fixed + each - 1)


def test_batches_side_by_side_share_memory_and_threads(bundle):
    fixed, each = bundle.report.bytes_per_batch, bundle.report.bytes_per_position
    several = kcompiler.load(bundle, providers=["cpu"], threads=6, memory=2 * (fixed + 9 * each) + 1).exact
    assert (several.workers.count, several.batch) == (2, 9)
    assert several.machine.divided(2)[1].threads == 5, "the session's own four, and two that call it"
    assert several.machine.divided(100) == (6, replace(several.machine, threads=1))
    alone = kcompiler.load(bundle, providers=["cpu"], threads=6, memory=fixed + 9 * each).exact
    assert (alone.workers.count, alone.batch) == (1, 9)
    assert alone.machine.divided(1) == (1, alone.machine)


def test_each_worker_runs_a_session_of_its_own(bundle):
    """Memory that one has given back would lie in the cache of another's core."""
    fixed, each = bundle.report.bytes_per_batch, bundle.report.bytes_per_position
    engine = kcompiler.load(bundle, providers=["cpu"], threads=7, memory=3 * (fixed + 9 * each) + 1).exact
    assert engine.workers.count == 3
    meet = threading.Barrier(3, timeout=60)  # so that each of the three has one item

    def session(_: int) -> tuple[int, object]:
        meet.wait()
        return threading.get_ident(), engine.sessions.of_worker()

    first, again = (dict(engine.workers.map(session, range(3))) for _ in range(2))
    assert first == again
    assert len({id(one) for one in first.values()}) == 3
    assert {one.get_session_options().intra_op_num_threads for one in first.values()} == {2}, "seven threads for three"


def test_many_weights_are_held_once(bundle, monkeypatch):
    monkeypatch.setattr(kcompiler.runtime.inference.variant_sessions, "FEW_BYTES", 0)
    engine = kcompiler.load(bundle, providers=["cpu"], threads=4, memory=2**30).exact
    assert engine.workers.count == 4
    sessions = list(engine.workers.map(lambda _: engine.sessions.of_worker(), range(8)))
    assert {id(one) for one in sessions} == {id(engine.sessions.incremental)}
    assert engine.sessions.incremental.get_session_options().intra_op_num_threads == 1


def test_the_operators_themselves_give_the_bits_of_full_inference(tmp_path, monkeypatch):
    """Of many weights, too: whether a product's weights are packed decides in which order it adds up."""
    monkeypatch.setattr(kcompiler.runtime.inference.variant_sessions, "FEW_BYTES", 0)
    builder = Builder()
    path = tmp_path / "model.onnx"
    onnx.save(builder.model(builder.relu(builder.conv("image", 32, pads=[1, 1, 1, 1])), 24, 28, classes=300), path)
    compiled = compile_file(path, Options(patch=(4, 6), prefer={"Conv": "regions"}, dense_share=2.0))
    assert any(node.lowering == "regions" for node in compiled.report.nodes)
    explainer, image = kcompiler.load(compiled, providers=["cpu"]), random_image((3, 24, 28), 0)
    positions = make_grid((24, 28), (4, 6), 4).positions
    found = explainer.exact.evaluate_all(explainer.exact.baseline(image, 0.5), positions)
    full = explainer.full_inference().outputs(image, fill_image(0.5, (3, 24, 28)), positions, (4, 6))
    np.testing.assert_array_equal(found, full)


def test_side_by_side_is_run_by_the_sessions_of_the_workers(bundle, image, monkeypatch):
    engine = kcompiler.load(bundle, providers=["cpu"], threads=2).exact
    asked = []
    own = VariantSessions.of_worker
    monkeypatch.setattr(VariantSessions, "of_worker", lambda self: asked.append(threading.get_ident()) or own(self))
    engine.batch = 4
    engine.evaluate_all(engine.baseline(image[None], 0.5), make_grid((24, 28), (4, 6), 2).positions)
    assert len(set(asked)) == 2
    engine.evaluate(engine.baseline(image[None], 0.5), np.zeros((1, 2), np.int64))
    assert threading.get_ident() not in asked, "a batch alone has all threads"


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40, 97])
def test_no_worker_is_idle_in_the_last_round(bundle, count):
    engine = kcompiler.load(bundle, providers=["cpu"], threads=3).exact
    engine.batch = 8
    positions = np.random.default_rng(count).integers(0, 16, (count, 2))
    parts = engine.batches(positions)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert max(map(len, parts)) <= 8
    rounds = -(-count // 24)
    assert -(-len(parts) // 3) == rounds, "no more rounds than it takes"
    assert len(parts) >= (1 if count < 8 else 3 * rounds - 1), "and in the last one nearly all have a batch"


@pytest.mark.parametrize("whole", [False, True])
def test_batches_side_by_side_give_what_each_gives_alone(whole, image, tmp_path):
    """Whether by the incremental model or, where nothing of a model is worth it, by full inference."""
    model = save("residual", tmp_path / "model.onnx", 24, 28)
    bundle = compile_file(model, Options(patch=(4, 6), dense_share=0.0 if whole else None))
    engine = kcompiler.load(bundle, providers=["cpu"], threads=4).exact
    assert (engine.workers.count, engine.variant.whole) == (4, whole)
    positions = np.array([(y, x) for y in range(0, 16, 2) for x in range(0, 20, 2)])
    baseline = engine.baseline(image[None], 0.2)
    parts = engine.batches(positions)
    found = list(engine.evaluate_batches(baseline, [positions[part] for part in parts]))
    for part, outputs in zip(parts, found, strict=True):
        np.testing.assert_allclose(outputs, engine.evaluate(baseline, positions[part]), rtol=1e-5, atol=1e-6)


def test_several_batches_of_full_inference_are_small(tmp_path):
    """Activations of more images would leave a core's caches; a batch that has all threads does not care."""
    model = save("residual", tmp_path / "model.onnx", 24, 28)
    bundle = compile_file(model, Options(patch=(4, 6), dense_share=0.0))
    several, alone = (kcompiler.load(bundle, providers=["cpu"], threads=count).exact for count in (3, 1))
    assert several.variant.whole
    assert (several.batch, alone.batch) == (SIDE_BY_SIDE, several.variant.batch)
    assert several.variant.batch > SIDE_BY_SIDE
    positions = make_grid((24, 28), (4, 6), 4).positions
    assert {len(part) for part in several.batches(positions)} <= {1, SIDE_BY_SIDE}
