"""A bundle that changes while it is in use gives an error, and no map; what changes nothing in it gives the map."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from networks import save

import kcompiler
from kcompiler.cli import main
from kcompiler.runtime.bundle.manifest import MANIFEST, WEIGHTS, read_manifest
from kcompiler.runtime.bundle.seal import OPEN, digest_of, sealed

IMAGE = np.random.default_rng(0).standard_normal((3, 20, 20), dtype=np.float32)
IN_USE = "replaced or altered while in use"


@pytest.fixture
def saved(tmp_path):
    return kcompiler.compile(save("residual", tmp_path / "model.onnx"), patch=4).save(tmp_path / "model.kc")


def overwritten(path):
    """Other weights in the same file, with the times of the old ones."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[:64] = np.full(16, 3, np.float32).tobytes()
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("batches_before", [None, 0, 1])
def test_weights_that_are_overwritten_in_place_make_no_map(saved, batches_before):
    explainer = kcompiler.load(saved, threads=1)
    told = []

    def progress(now):
        told.append(now)
        if len(told) - 1 == batches_before:
            overwritten(saved / WEIGHTS)

    if batches_before is None:
        overwritten(saved / WEIGHTS)
    for explain in (
        lambda: explainer.explain(IMAGE, stride=1, progress=progress),
        lambda: explainer.explain_targets(IMAGE, "all", stride=1),
        lambda: list(explainer.refinements(IMAGE, stride=1)),
        lambda: explainer.outputs(IMAGE, [[0, 0]]),
    ):
        with pytest.raises(kcompiler.BundleError, match=IN_USE):
            explain()


def test_weights_that_are_cut_off_are_noticed_before_they_are_read(saved):
    explainer = kcompiler.load(saved, threads=1)
    os.truncate(saved / WEIGHTS, 100)
    with pytest.raises(kcompiler.BundleError, match=f"{WEIGHTS}: {IN_USE}"):
        explainer.explain(IMAGE, stride=4)


def test_files_whose_content_stays_may_be_touched(saved):
    explainer = kcompiler.load(saved, threads=1)
    expected = explainer.explain(IMAGE, stride=4)
    for name in (WEIGHTS, "incremental.onnx"):
        os.utime(saved / name)
        os.chmod(saved / name, 0o444)
    os.link(saved / WEIGHTS, saved.parent / "link")
    assert np.array_equal(explainer.explain(IMAGE, stride=4).scores, expected.scores)
    (saved / "incremental.onnx").unlink()
    with pytest.raises(kcompiler.BundleError, match=IN_USE):
        explainer.explain(IMAGE, stride=4)


RECIPE = {"size": [20, 20], "resize": "stretch", "scale": 1.0, "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1], "channel_order": "RGB"}


@pytest.mark.parametrize(
    ("old", "new"), [('"mean":[\n   0.5', '"mean":[\n   0.6'), ('"classes": 5', '"classes": 6'), ("[", "[ ")]
)
def test_a_changed_digit_of_the_manifest_is_found(tmp_path, capfd, monkeypatch, old, new):
    recipe = kcompiler.Preprocessing.model_validate(RECIPE)
    bundle = kcompiler.compile(save("residual", tmp_path / "model.onnx"), patch=4, preprocessing=recipe).save(
        tmp_path / "model.kc"
    )
    text = (bundle / MANIFEST).read_text()
    assert text.replace(": ", ":").count(old.replace(": ", ":")), "there is something to change"
    changed = text.replace(old, new, 1) if old in text else text.replace(old.replace(":[", ": ["), new.replace(":[", ": ["), 1)
    assert changed != text
    (bundle / MANIFEST).write_text(changed)
    monkeypatch.setattr("sys.argv", ["kcompiler", "check", str(bundle)])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 3
    assert f"{MANIFEST}: altered since it was written" in capfd.readouterr().err


def test_the_digest_is_of_the_file_with_zeros_for_it(saved):
    text = (saved / MANIFEST).read_text()
    seal = json.loads(text)["manifest_sha256"]
    assert read_manifest(saved).manifest_sha256 == seal == digest_of(text, seal)
    assert sealed(text.replace(seal, OPEN)) == text.encode()


def test_manifests_without_a_digest_are_read(saved):
    content = json.loads((saved / MANIFEST).read_text())
    del content["manifest_sha256"]
    (saved / MANIFEST).write_text(json.dumps(content))
    assert read_manifest(saved).manifest_sha256 is None
