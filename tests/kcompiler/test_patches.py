"""Several patches in one bundle: each as if compiled alone, weights once."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from networks import save
from typer.testing import CliRunner

import kcompiler
from kcompiler.cli import app
from kcompiler.runtime.measuring.check import check, sample_positions

SIZE = (40, 44)
PATCHES = [5, 12, (4, 9)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("residual", tmp_path_factory.mktemp("model") / "model.onnx", *SIZE)


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    compiled = kcompiler.compile(model, patch=PATCHES, thresholds=(0.3,), device="cuda")
    return compiled.save(tmp_path_factory.mktemp("bundle") / "model.kc")


@pytest.mark.parametrize("patch", PATCHES)
def test_each_is_as_if_compiled_alone(model, bundle, patch):
    alone = kcompiler.load(kcompiler.compile(model, patch=patch, thresholds=(0.3,), device="cuda"), providers=["cpu"])
    explainer = kcompiler.load(bundle, providers=["cpu"], patch=patch)
    assert explainer.manifest.patch == alone.manifest.patch
    assert list(explainer.engines) == list(alone.engines)
    image = np.random.default_rng(1).standard_normal((3, *SIZE), dtype=np.float32)
    np.testing.assert_array_equal(explainer.explain(image, stride=3).scores, alone.explain(image, stride=3).scores)
    assert explainer.manifest.report == alone.manifest.report
    assert check(explainer, sample_positions(SIZE, explainer.manifest.patch, 64, seed=0)).agrees
    by_class = kcompiler.load(bundle, providers=["cpu"], patch=patch, compiled_for="cuda")
    assert check(by_class, sample_positions(SIZE, by_class.manifest.patch, 64, seed=0)).agrees


def test_weights_are_there_once(model, bundle):
    alone = kcompiler.compile(model, patch=5, thresholds=(0.3,), device="cuda")
    sizes = [(folder / "weights.bin").stat().st_size for folder in (bundle, alone.folder)]
    assert sizes[0] <= 1.2 * sizes[1], "tiles of other sizes have weights of their own"


def test_the_first_is_the_default_and_others_are_named(bundle):
    explainer = kcompiler.load(bundle, providers=["cpu"])
    assert (explainer.manifest.patch, explainer.patches) == ((5, 5), ((5, 5), (12, 12), (4, 9)))
    with pytest.raises(kcompiler.UsageError, match="patch 7x7: the bundle is compiled for 5x5, 12x12, 4x9"):
        kcompiler.load(bundle, patch=7)


def test_files_of_every_patch_are_verified(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "m.kc")
    (tmp_path / "m.kc" / "incremental-p4x9.exact.onnx").unlink()
    with pytest.raises(kcompiler.BundleError, match=r"p4x9\.exact\.onnx: missing"):
        kcompiler.load(tmp_path / "m.kc")


@pytest.mark.parametrize(
    ("patch", "message"),
    [([5, 5], "occurs twice"), ([5, 41], "does not fit"), ([5, "a"], "expected whole numbers"), ([], "empty list")],
)
def test_patches_that_make_no_sense(model, patch, message):
    with pytest.raises(kcompiler.UsageError, match=message):
        kcompiler.compile(model, patch=patch)


def test_the_command_line(model, tmp_path):
    runner = CliRunner()
    bundle, out = tmp_path / "m.kc", tmp_path / "maps"
    done = runner.invoke(app, ["compile", str(model), "-o", str(bundle), "--patch", "5", "--patch", "4x9"])
    assert done.exit_code == 0, done.output
    assert "patch 4x9: redundancy" in done.output
    assert runner.invoke(app, ["check", str(bundle), "--patch", "4x9", "--provider", "cpu"]).exit_code == 0
    np.save(tmp_path / "image.npy", np.random.default_rng(1).standard_normal((3, *SIZE)).astype(np.float32))
    explained = ["explain", str(bundle), str(tmp_path / "image.npy"), "-o", str(tmp_path / "results"), "--patch", "4x9"]
    done = runner.invoke(app, [*explained, "--stride", "8", "--provider", "cpu"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "results" / "image.json").read_text())["patch"] == [4, 9]
    exported = runner.invoke(app, ["export", str(bundle), "-o", str(out), "--patch", "4x9", "--stride", "8"])
    assert exported.exit_code == 0, exported.output
    assert json.loads((out / "card.json").read_text())["patch"] == [4, 9]
