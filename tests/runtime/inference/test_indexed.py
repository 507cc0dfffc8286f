"""Variants for devices as the CPU runs them: indices that are kept, memory that is used again, runs that may be captured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from networks import save
from source_file import NEVER_DENSE

import kcompiler
from kcompiler.options import Approximation, Options
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.pipeline import compile_file
from kcompiler.runtime.bundle.plans import Evidence, SamplingPlan, Tuned
from kcompiler.runtime.inference.buffers import Pool
from kcompiler.runtime.inference.cuda import PROBE
from kcompiler.runtime.inference.indexed import Captures
from kcompiler.runtime.inference.sessions import captured_as
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.sampling.tuned import find_tuned
from kcompiler.runtime.tuning.trials import Goal
from kcompiler.runtime.tuning.tuner import tune

SIZE, PATCH = (24, 28), (4, 6)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = save("residual", tmp_path_factory.mktemp("model") / "model.onnx", *SIZE)
    return compile_file(model, Options(patch=PATCH, device="cuda", dense_share=NEVER_DENSE))


@pytest.fixture
def explainer(bundle):
    return kcompiler.load(bundle, providers=["cpu"], threads=1, compiled_for="cuda")


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, *SIZE), dtype=np.float32)


def test_the_variant_is_chosen_by_device(bundle, explainer):
    assert explainer.exact.variant.device == "cuda"
    assert kcompiler.load(bundle, providers=["cpu"]).exact.variant.device == "cpu"
    plain = kcompiler.compile(bundle.folder / "full.onnx", patch=PATCH)
    assert kcompiler.load(plain, providers=["cpu"], compiled_for="cuda").exact.variant.device == "cpu", "it has no other"


def test_maps_equal_those_of_the_other_variant(bundle, explainer):
    other = kcompiler.load(bundle, providers=["cpu"])
    for stride, fill in ((1, 0.3), (3, (0.1, -0.2, 0.5)), (2, "noise")):
        mine, theirs = (one.explain(image(1)[0], stride=stride, fill=fill) for one in (explainer, other))
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=2e-5)
        assert mine.unoccluded == pytest.approx(theirs.unoccluded, abs=2e-5)


@pytest.mark.parametrize("edges", ["valid", "inward", "cut", "centred"])
def test_patches_beyond_the_borders(bundle, explainer, edges):
    mine, theirs = (
        one.explain(image(1)[0], stride=3, edges=edges) for one in (explainer, kcompiler.load(bundle, providers=["cpu"]))
    )
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=2e-5)


def test_indices_are_computed_once_for_all_images(explainer, monkeypatch):
    indexed, computed = explainer.exact._indexed, []
    compute = indexed.values
    monkeypatch.setattr(indexed, "values", lambda *given: computed.append(len(given[0])) or compute(*given))
    first = explainer.explain(image(1)[0], stride=2)
    assert sum(computed) == first.scores.size + 1, "of the map, and of the image covered with itself"
    computed.clear()
    explainer.explain(image(2)[0], stride=2)
    assert not computed


def test_indices_beyond_the_limit_are_forgotten(explainer):
    indexed = explainer.exact._indexed
    positions = make_grid(SIZE, PATCH, 1).positions
    indexed._most = indexed.placed(positions[:100]).bytes * 5 // 2
    kept = [indexed.placed(positions[start : start + 100]) for start in (100, 200, 300)]
    assert list(indexed._kept.values()) == kept[1:]
    assert indexed.placed(positions[200:300]) is kept[1]
    assert indexed.placed(positions[:100]) is not None
    assert next(iter(indexed._kept.values())) is kept[1], "the one used longest ago is forgotten first"


def test_images_that_are_explained_at_once_have_memory_of_their_own(explainer):
    """Memory is used again, but not while an earlier image's activations are."""
    engine, positions = explainer.exact, make_grid(SIZE, PATCH, 4).positions
    expected = [engine.evaluate_all(engine.baseline(image(seed), fill), positions) for seed, fill in ((1, 0.5), (2, -1.0))]
    first, second = engine.baseline(image(1), 0.5), engine.baseline(image(2), -1.0)
    found = [engine.evaluate_all(baseline, positions) for baseline in (first, second, first)]
    for one, other in zip(found, (*expected, expected[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(*expected)


def test_memory_is_used_again(explainer):
    engine = explainer.exact

    def addresses(seed: int) -> dict[str, int]:
        baseline = engine.baseline(image(seed), 0.5)
        return {name: value.data_ptr() for name, value in baseline.feeds.items()}

    assert addresses(1) == addresses(2) == addresses(3)


def test_a_pool_gives_what_no_lease_holds():
    pool = Pool()
    assert pool.taken() == {}
    lease = pool.leased({"x": "memory"})
    also = lease
    del lease
    assert pool.taken() == {}
    del also
    assert pool.taken() == {"x": "memory"}
    assert pool.taken() == {}


def test_threads_share_an_explainer(explainer):
    expected = [explainer.explain(image(seed)[0], stride=3).scores for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: explainer.explain(image(seed)[0], stride=3).scores, range(4)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_is_captured_once_its_addresses_recur():
    captures = Captures(most=1)
    assert captures.number((10, 20)) == -1
    captures.ran((10, 20, 30))  # the first run allocated its output
    assert captures.number((10, 20)) == -1, "its output would lie elsewhere"
    assert captures.number((10, 20, 30)) == 1
    assert captures.number((10, 20, 30)) == 1, "replayed"
    captures.ran((11, 20, 30))
    assert captures.number((11, 20, 30)) == -1, "as many as are kept"
    assert captured_as(7).get_run_config_entry("gpu_graph_id") == "7"


def test_runs_that_keep_their_results_on_the_device_give_the_same(explainer):
    """As CUDA graphs need it: the same memory for inputs and outputs; without CUDA nothing is captured."""
    engine, positions = explainer.exact, make_grid(SIZE, PATCH, 2).positions
    expected = engine.evaluate_all(engine.baseline(image(1), 0.5), positions)
    engine._indexed._capturing = True
    for seed in (3, 1, 4, 1):
        found = engine.evaluate_all(engine.baseline(image(seed), 0.5), positions)
        assert np.array_equal(found, expected) == (seed == 1)
    assert engine._indexed._captures._numbers, "from the second image on"


def test_precision_is_an_option_of_the_variant(tmp_path):
    model = save("residual", tmp_path / "model.onnx", *SIZE)
    with pytest.raises(kcompiler.UsageError, match="tf32 is of CUDA devices; add --device cuda"):
        kcompiler.compile(model, patch=PATCH, precision="tf32")
    options = Options(
        patch=PATCH, device="cuda", precision="tf32", dense_share=NEVER_DENSE, approximations=(Approximation(Thresholds(0.4)),)
    )
    bundle = compile_file(model, options)
    names = [variant.name for variant in bundle.manifest.device_variants]
    assert names == ["exact", "tau0.4", "tf32", "tau0.4.tf32"]
    engines = kcompiler.load(bundle, providers=["cpu"], compiled_for="cuda").engines
    assert [engines[name].machine.cuda.tf32 for name in names] == [False, False, True, True]
    assert engines["tf32"].variant == engines["exact"].variant.model_copy(update={"name": "tf32", "tf32": True})
    given = engines["exact"].machine.cuda
    assert given.provider_options["use_tf32"] == "0", "ONNX Runtime's default is on"
    assert replace(given, tf32=True).provider_options["use_tf32"] == "1"


def test_8_bit_integers_are_refused_for_cuda(tmp_path):
    bundle = kcompiler.compile(save("chain", tmp_path / "model.onnx", *SIZE), patch=PATCH, device="cuda", int8=True)
    assert [variant.name for variant in bundle.manifest.device_variants] == ["exact"]
    assert "no variant int8 for cuda: ONNX Runtime has no 8-bit integer products there" in bundle.report.notes


def test_a_model_that_runs_whole_there_has_no_files_of_its_own(tmp_path):
    options = Options(patch=PATCH, device="cuda", dense_share=0.0)
    bundle = compile_file(save("chain", tmp_path / "model.onnx", *SIZE), options)
    (variant,) = bundle.manifest.device_variants
    assert (variant.whole, variant.index, variant.files) == (True, None, bundle.manifest.exact.files)
    explainer = kcompiler.load(bundle, providers=["cpu"], compiled_for="cuda")
    positions = make_grid(SIZE, PATCH, 5).positions
    expected = explainer.full_inference().outputs(image(1), np.full((3, *SIZE), 0.5, np.float32), positions, PATCH)
    found = explainer.exact.evaluate_all(explainer.exact.baseline(image(1), 0.5), positions)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_probe_is_a_model_that_opens():
    session = onnxruntime.InferenceSession(PROBE, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.full((1, 1, 1, 1), 3.0, np.float32)})[0].tolist() == [[[[9.0]]]]


def test_plans_are_tuned_for_a_device(bundle):
    """Another device's variants may recompute other regions."""
    tuned = Tuned(
        ssim=0.9, share=0.8, confidence=0.9, promised=True, stride=2, score="output", fill=None, target=None,
        plan=SamplingPlan(step=2, share=0.5, expected_ssim=0.9), device="cuda",
        evidence=Evidence(given=2, images=2, held_out=1, kept=1, least_share=0.1, ssim=(0.95,), pearson=1.0, top_overlap=1.0,
                          rendered_ssim=1.0, evaluated=0.5, seconds=1.0, exact_seconds=2.0, spot_error=0.1, candidates=()),
    )  # fmt: skip
    manifest = bundle.manifest.model_copy(update={"tuned": (tuned,)})
    assert find_tuned(manifest, 0.9, 2, "output", None, None, "cuda") is tuned
    with pytest.raises(kcompiler.UsageError, match=r"SSIM 0\.9 of the output at stride 2 by the variants for cuda; run"):
        find_tuned(manifest, 0.9, 2, "output", None, None)


def test_plans_for_export_are_tuned_with_the_variants_for_the_cpu(explainer):
    with pytest.raises(kcompiler.UsageError, match="with the provider cpu"):
        tune(explainer, [], Goal(for_export=True))
