"""Manifests of earlier formats and of later ones: read where that can be, otherwise refused with what to do."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version

import numpy as np
import pytest
from networks import save

import kcompiler
from kcompiler.cli import main
from kcompiler.runtime.bundle import manifest as manifests
from kcompiler.runtime.bundle.manifest import FORMAT, MANIFEST, READABLE, read_manifest

OWN = version("kcompiler")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    return kcompiler.compile(save("residual", folder / "model.onnx"), patch=4).save(folder / "model.kc")


@pytest.fixture
def edited(original, tmp_path):
    """Copies the bundle, with the manifest that a function of its content leaves; returns the path."""

    def copy(change):
        shutil.copytree(original, tmp_path / "model.kc")
        content = json.loads((original / MANIFEST).read_text(encoding="utf-8"))
        del content["manifest_sha256"]
        change(content)
        (tmp_path / "model.kc" / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
        return tmp_path / "model.kc"

    return copy


OWN_FORMATS = f"{READABLE.start} to {FORMAT}"


def refused(path):
    with pytest.raises(kcompiler.BundleError) as error:
        kcompiler.load(path)
    return str(error.value)


@pytest.mark.parametrize("number", [-1, 0, 1, READABLE.start - 1])
def test_earlier_formats_are_compiled_again(edited, number):
    message = refused(edited(lambda m: (m.update(format=number), m["versions"].update(kcompiler="0.0.3"), m.pop("patch"))))
    assert (
        f"bundle format {number}, written by kcompiler 0.0.3; this is kcompiler {OWN}, which reads format {OWN_FORMATS};"
        in message
    )
    assert message.endswith("compile the model again")


@pytest.mark.parametrize("number", [FORMAT + 1, 10**30])
def test_later_formats_ask_for_an_upgrade(edited, number):
    """Also where all else in the manifest is unlike what this version knows."""
    path = edited(lambda m: (m.clear(), m.update(format=number, versions={"kcompiler": "7.0"}, graphs=[])))
    assert refused(path) == (
        f"{path / MANIFEST}: bundle format {number}, written by kcompiler 7.0; this is kcompiler {OWN}, which reads only up to "
        f"format {FORMAT}; upgrade kcompiler, or compile the model again with this version"
    )


@pytest.mark.parametrize("versions", [None, [], {}, {"kcompiler": 3}, "0.1"])
def test_formats_are_refused_whoever_wrote_them(edited, versions):
    assert f"bundle format {FORMAT + 1}, written by kcompiler unknown" in refused(
        edited(lambda m: m.update(format=FORMAT + 1, versions=versions))
    )


@pytest.mark.parametrize("found", ["8", "eight", 8.5, None, True, [8], {"number": 8}])
def test_formats_that_are_no_number_are_damage(edited, found):
    assert f"damaged (format is {found!r}, expected a whole number)" in refused(edited(lambda m: m.update(format=found)))


def test_manifests_without_a_format_are_damaged(edited):
    assert "damaged (format is None" in refused(edited(lambda m: m.pop("format")))


def without_later_fields(content):
    """As the format's first manifests were: without the fields that were added since, which have defaults."""
    for node in content["report"]["nodes"]:
        for name in ("layout", "copies", "microbatches", "follows", "updated", "source"):
            del node[name]
    for variant in content["variants"]:
        del variant["microbatches"]
    del content["report"]["notes"]


def test_manifests_without_fields_that_came_later_are_read(edited, original):
    path = edited(without_later_fields)
    node = read_manifest(path).report.nodes[0]
    assert (node.layout, node.copies, node.microbatches, node.follows, node.updated) == ("", False, 1, "", False)
    assert node.source is None
    image = np.random.default_rng(0).standard_normal((3, 20, 20), dtype=np.float32)
    found, expected = (kcompiler.load(bundle).outputs(image, [[0, 0], [5, 7]]) for bundle in (path, original))
    assert np.array_equal(found, expected)


RECIPE = {"size": [20, 20], "resize": "crop", "shorter_side": 20, "interpolation": "bilinear", "scale": 1.0, "mean": [0, 0, 0],
          "std": [1, 1, 1], "channel_order": "RGB", "labels": []}  # fmt: skip
"""All fields of a recipe of format 8."""


def test_recipes_of_the_format_before_are_read_as_they_were(edited):
    path = edited(lambda m: m.update(format=FORMAT - 1, preprocessing=RECIPE))
    assert (FORMAT, READABLE.start) == (9, 8)
    recipe = read_manifest(path).preprocessing
    assert (recipe.crop_at, recipe.rounded, recipe.invert, recipe.bits, recipe.window) == ("fraction", False, False, None, None)


def test_earlier_formats_that_can_be_read_are(edited, original, monkeypatch):
    """What this version writes, read by one whose format is the next, and which still reads this one."""
    path = edited(without_later_fields)
    monkeypatch.setattr(manifests, "READABLE", range(FORMAT, FORMAT + 2))
    assert read_manifest(path).format == FORMAT
    other = path / MANIFEST
    other.write_text(json.dumps({**json.loads(other.read_text()), "format": FORMAT - 1}))
    assert f"which reads format {FORMAT} to {FORMAT + 1}; compile the model again" in refused(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(surprise=1), f"later kcompiler (written by {OWN}, this is {OWN}; unknown: surprise)"),
        (lambda m: m["variants"][0].update(speed=2), "unknown: variants.0.speed)"),
        (lambda m: m["report"]["nodes"][0].update(fused=[]), "unknown: report.nodes.0.fused)"),
        (lambda m: (m.update(surprise=1), m.pop("patch")), "unknown: surprise; missing: patch)"),
        (lambda m: m["variants"][0].pop("batch"), "damaged (missing: variants.0.batch)"),
        (lambda m: m["variants"][0].update(batch="64"), "damaged (wrong: variants.0.batch)"),
        (lambda m: m.update(classes="three"), "damaged (wrong: classes)"),
        (lambda m: m.update(classes=5.0), "damaged (wrong: classes)"),
        (lambda m: m.update(two_classes=0), "damaged (wrong: two_classes)"),
        (lambda m: m.update(patch=[4]), "damaged (missing: patch.1)"),
        (lambda m: m.update(layout="HWC"), "damaged (wrong: layout)"),
    ],
)
def test_fields_that_are_unknown_missing_or_wrong_are_named(edited, change, said):
    assert said in refused(edited(change))


@pytest.mark.parametrize("number", [READABLE.start - 1, FORMAT + 1])
def test_the_command_line_says_the_same(edited, capfd, monkeypatch, number):
    path = edited(lambda m: m.update(format=number))
    monkeypatch.setattr("sys.argv", ["kcompiler", "check", str(path)])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 3
    said = capfd.readouterr().err
    assert f"bundle format {number}" in said
    assert "Traceback" not in said
