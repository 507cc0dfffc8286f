"""Bundles on disk: whole or absent, and refused when altered."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import save

import kcompiler
from kcompiler.runtime.bundle import files
from kcompiler.runtime.bundle.manifest import FILES, MANIFEST


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    return kcompiler.compile(save("residual", folder / "model.onnx"), patch=4).save(folder / "model.kc")


@pytest.fixture
def saved(original, tmp_path):
    shutil.copytree(original, tmp_path / "model.kc")
    return tmp_path / "model.kc"


def test_bundle_is_five_files(saved):
    assert sorted(path.name for path in saved.iterdir()) == sorted([*FILES, MANIFEST])


def test_saved_bundle_loads_without_its_maker(saved):
    image = np.zeros((3, 20, 20), np.float32)
    assert kcompiler.load(saved).outputs(image, [[0, 0]]).shape == (1, 5)


def test_models_pass_the_checker_and_share_their_weights(saved):
    locations = set()
    for name in FILES[:3]:
        onnx.checker.check_model(saved / name, full_check=True)
        model = onnx.load(saved / name, load_external_data=False)
        assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
        assert {node.domain for node in model.graph.node} <= {""}
        for weight in model.graph.initializer:
            inline = weight.data_location != onnx.TensorProto.EXTERNAL
            assert not inline or np.prod(weight.dims) * 8 <= 8192 * 8
            locations |= {entry.value for entry in weight.external_data if entry.key == "location"}
    assert locations <= {"weights.bin"}


@pytest.mark.parametrize("name", FILES)
def test_one_altered_byte_is_refused(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(kcompiler.BundleError, match=f"{name}: altered"):
        kcompiler.load(saved)


@pytest.mark.parametrize("name", FILES)
def test_missing_and_cut_files_are_refused(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1])
    with pytest.raises(kcompiler.BundleError, match=rf"{name}: {len(content) - 1} bytes, expected {len(content)}"):
        kcompiler.load(saved)
    (saved / name).unlink()
    with pytest.raises(kcompiler.BundleError, match=f"{name}: missing"):
        kcompiler.load(saved)


def edited(saved, change):
    manifest = json.loads((saved / MANIFEST).read_text())
    del manifest["manifest_sha256"]
    change(manifest)
    (saved / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("patch"), "missing: patch"),
        (lambda m: m.update(patch=[0, 4]), "patch"),
        (lambda m: m.update(shape="large"), "shape"),
        (lambda m: m["files"].pop("full.onnx"), "lists the files"),
        (lambda m: m["files"].update({"../evil": m["files"]["full.onnx"]}), "lists the files"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.update(patch=[5, 4]), "geometry 0 is of"),
        (lambda m: m.update(shape=[3, 19, 20]), "geometry 0 is of"),
        (lambda m: m.update(image="pixels"), "manifest and models disagree"),
        (lambda m: m.update(output="scores"), "manifest and models disagree"),
        (lambda m: m["report"].update(bytes_per_position=0), "bytes_per_position"),
        (lambda m: m.update(classes=-1), "classes"),
    ],
)
def test_damaged_manifests_are_refused(saved, change, message):
    edited(saved, change)
    with pytest.raises(kcompiler.BundleError, match=message):
        kcompiler.load(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000], ids=range(6))
def test_manifest_that_is_no_manifest(saved, content):
    (saved / MANIFEST).write_bytes(content)
    with pytest.raises(kcompiler.BundleError, match="damaged"):
        kcompiler.load(saved)


def test_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(kcompiler.BundleError, match="not a compiled bundle"):
        kcompiler.load(tmp_path)
    with pytest.raises(kcompiler.BundleError, match="not a compiled bundle"):
        kcompiler.load(tmp_path / "absent")


def test_saving_never_replaces_unasked(saved, tmp_path):
    bundle = kcompiler.compile(save("chain", tmp_path / "other.onnx"), patch=3)
    before = (saved / MANIFEST).read_bytes()
    with pytest.raises(kcompiler.UsageError, match="exists already"):
        bundle.save(saved)
    assert (saved / MANIFEST).read_bytes() == before
    bundle.save(saved, force=True)
    assert kcompiler.load(saved).manifest.patch == (3, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.kc", "other.onnx"], "no scratch is left behind"


@pytest.mark.parametrize("there", ["thesis", "file", "link"])
def test_what_is_not_ours_is_never_replaced(saved, tmp_path, there):
    target = tmp_path / "target"
    if there == "thesis":
        target.mkdir()
        (target / "thesis.txt").write_text("years")
    elif there == "file":
        target.write_text("years")
    else:
        target.symlink_to(saved)
    bundle = kcompiler.compile(save("chain", tmp_path / "other.onnx"), patch=3)
    with pytest.raises(kcompiler.UsageError, match="will not be replaced"):
        bundle.save(target, force=True)
    if there != "link":
        kept = target / "thesis.txt" if there == "thesis" else target
        assert kept.read_text() == "years"
    assert kcompiler.load(saved).manifest.patch == (4, 4)


@pytest.mark.parametrize("there", ["by name alone", "beside a bundle", "folder", "link"])
def test_what_only_has_a_name_of_ours_is_never_replaced(saved, tmp_path, there):
    """A model that somebody calls full.onnx, and what was put into a bundle."""
    target = saved
    if there == "by name alone":
        target = tmp_path / "models"
        target.mkdir()
        stranger = target / "full.onnx"
    else:
        stranger = saved / "incremental-p9x9.onnx"
    if there == "folder":
        stranger.mkdir()
    elif there == "link":
        stranger.symlink_to(tmp_path / "thesis.onnx")
    else:
        stranger.write_bytes(b"years")
    bundle = kcompiler.compile(save("chain", tmp_path / "other.onnx"), patch=3)
    with pytest.raises(kcompiler.UsageError, match=rf"is not a bundle alone \({stranger.name}\), it will not be replaced"):
        bundle.save(target, force=True)
    assert os.path.lexists(stranger)


def test_a_damaged_bundle_is_replaced(saved, tmp_path):
    (saved / MANIFEST).write_bytes(b"{")
    kcompiler.compile(save("chain", tmp_path / "other.onnx"), patch=3).save(saved, force=True)
    assert kcompiler.load(saved).manifest.patch == (3, 3)


@pytest.mark.parametrize("error", [OSError("disk on fire"), KeyboardInterrupt()])
@pytest.mark.parametrize("done", [False, True])
def test_old_bundle_comes_back_if_the_new_one_cannot_take_its_place(saved, tmp_path, monkeypatch, error, done):
    """Whatever the first or the second of two renames is interrupted by, before it is done or just after."""
    bundle = kcompiler.compile(save("chain", tmp_path / "other.onnx"), patch=3)
    renamed, calls = files.os.replace, []

    def fails(source, target):
        calls.append(target)
        if done and len(calls) == 1:
            renamed(source, target)
            raise error
        if not done and len(calls) == 2:
            raise error
        renamed(source, target)

    monkeypatch.setattr(files.os, "replace", fails)
    with pytest.raises((kcompiler.UsageError, KeyboardInterrupt)):
        bundle.save(saved, force=True)
    monkeypatch.undo()
    assert kcompiler.load(saved).manifest.patch == (4, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.kc", "other.onnx"]


def test_the_only_copy_of_a_bundle_is_never_removed(saved, tmp_path, monkeypatch):
    bundle = kcompiler.compile(save("chain", tmp_path / "other.onnx"), patch=3)
    renamed, calls = files.os.replace, []

    def once(source, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError("disk on fire")
        renamed(source, target)

    monkeypatch.setattr(files.os, "replace", once)
    with pytest.raises(kcompiler.UsageError, match="disk on fire") as error:
        bundle.save(saved, force=True)
    (kept,) = tmp_path.glob(".writing-*/*/old/model.kc")
    assert f"kept at {kept}" in str(error.value)
    assert kcompiler.load(kept).manifest.patch == (4, 4)
    monkeypatch.undo()
    assert kcompiler.load(saved).manifest.patch == (3, 3), "whoever reads it makes the moves that are left"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.kc", "other.onnx"]


def test_a_bundle_that_is_replaced_while_in_use_is_refused(saved, tmp_path):
    """Sessions open when they are needed: those of two models would make one map."""
    explainer = kcompiler.load(saved, threads=2)
    image = np.zeros((3, 20, 20), np.float32)
    explainer.outputs(image, [[0, 0]])
    kcompiler.compile(save("chain", tmp_path / "other.onnx"), patch=4).save(saved, force=True)
    with pytest.raises(kcompiler.BundleError, match="replaced or altered while in use"):
        explainer.explain(image, stride=1, target=0)
    with pytest.raises(kcompiler.BundleError, match="replaced or altered while in use"):
        explainer.full_inference()


def test_saved_bundle_has_the_users_permissions(tmp_path):
    (tmp_path / "plain").mkdir()
    bundle = kcompiler.compile(save("chain", tmp_path / "other.onnx"), patch=3)
    assert bundle.save(tmp_path / "new.kc").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_temporary_folder_goes_with_the_bundle(tmp_path):
    bundle = kcompiler.compile(save("chain", tmp_path / "model.onnx"), patch=3)
    folder = bundle.folder
    explainer = kcompiler.load(bundle)
    del bundle
    assert folder.is_dir(), "an explainer keeps its bundle"
    del explainer
    assert not folder.exists()


def test_failed_compilation_leaves_nothing(tmp_path, monkeypatch):
    from kcompiler import verified

    made = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(verified, "Verifier", lambda folder, *_: made.append(folder) or 1 / 0)
    model = save("chain", tmp_path / "model.onnx")
    with pytest.raises(kcompiler.ModelError, match="ZeroDivisionError"):
        kcompiler.compile(model, patch=3)  # raised after the models are written
    assert made
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_compiled_model_that_disagrees_is_not_written(tmp_path, monkeypatch):
    """A broken lowering is caught at compile time."""
    from kcompiler.options import Options
    from kcompiler.passes.lowering import select
    from kcompiler.pipeline import compile_file

    def off_by_a_percent(site):
        lowered = original.emit(site)
        return site.computed(rows=site.emit("Mul", lowered.rows, site.emit.constant(np.float32(1.01))))

    original = select.LOWERINGS["MaxPool"][0]
    monkeypatch.setitem(select.LOWERINGS, "MaxPool", [replace(original, emit=off_by_a_percent)])
    with pytest.raises(kcompiler.CheckFailed, match="disagrees with full inference"):
        compile_file(save("chain", tmp_path / "model.onnx"), Options(patch=(3, 3), dense_share=2.0))
