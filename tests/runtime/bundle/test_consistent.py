"""Manifests whose fields are right one by one, and describe no model together; numbers that no compiler wrote."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest
from networks import save

import kcompiler
from kcompiler.runtime.bundle.manifest import MANIFEST

RECIPE = kcompiler.Preprocessing(size=(20, 20), resize="stretch", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="RGB")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    bundle = kcompiler.compile(save("residual", folder / "model.onnx"), patch=4, device="cuda", preprocessing=RECIPE)
    return bundle.save(folder / "model.kc")


def another(variant, number):
    return {**copy.deepcopy(variant), "name": f"tau0.{number}"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m, v: v.update(threshold=0.5), "the first variant for cpu is 'exact', expected the exact one"),
        (lambda m, v: v.update(name="tau0.5"), "expected the exact one"),
        (lambda m, v: v.update(integers=True), "expected the exact one"),
        (lambda m, v: v.update(device="cuda"), "variants are those for the CPU"),
        (lambda m, v: m["variants"].append(v), "2 variants for cpu have 1 names"),
        (lambda m, v: m["variants"].extend(another(v, one) for one in range(5000)), "5001 variants for cpu have 5001"),
        (lambda m, v: v["geometries"][0]["heights"].pop(), "geometry 0 is of (22, 23) rows and columns, expected (23, 23)"),
        (lambda m, v: v["geometries"][0]["widths"].append(1), "geometry 0 is of (23, 24)"),
        (lambda m, v: v["geometries"][0].update(work=-1.0), "geometry 0 has work -1"),
        (lambda m, v: v["geometries"][0].update(heights=[1 << 40] * 23), "extents above"),
        (lambda m, v: v.update(index="index-cuda.exact.onnx"), "an index model goes with classes of extents"),
        (lambda m, v: m["device_variants"][0].update(classes=[{"rows": [400], "columns": [0]}]), "where no patch lies"),
        (lambda m, v: m["preprocessing"].update(labels=["one"]), "preprocessing has 1 labels for 5 classes"),
        (lambda m, v: m["preprocessing"].update(size=[65536, 65536]), "preprocessing makes images of [3, 65536, 65536]"),
        (lambda m, v: m.update(two_classes=True), "a single sigmoid scores two classes"),
        (lambda m, v: m.update(largest_batch=1 << 40), "largest_batch is"),
        (lambda m, v: m.update(patch=[4, 40]), "larger than the image"),
        (lambda m, v: m.update(classes=1 << 40), "there are 1099511627776 outputs"),
        (lambda m, v: m.update(classes=6), "the models put out 5 numbers, expected 6"),
        (lambda m, v: v.update(few=1 << 64), "variants.0.few has more than 64 bits"),
        (lambda m, v: v.update(predicted_speedup=float("inf")), "variants.0.predicted_speedup is not finite"),
        (lambda m, v: m.update(reduction={"how": "mean", "over": "class", "shape": [5], "axis": 7}), "reduction is along axis 7"),
        (lambda m, v: m.update(reduction={"how": "mean", "over": "box", "shape": [5], "axis": 0}), "reduction has a box where"),
        (lambda m, v: m.update(reduction={"how": "mean", "over": "class", "shape": [9], "axis": 0}), "leaves 9 classes"),
        (lambda m, v: m.update(further=[{name: m[name] for name in ("patch", "variants", "report")}]), "there are 2 patches"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(original, tmp_path, change, said):
    shutil.copytree(original, tmp_path / "model.kc")
    content = json.loads((original / MANIFEST).read_text())
    del content["manifest_sha256"]
    content["preprocessing"].pop("labels")
    change(content, content["variants"][0])
    (tmp_path / "model.kc" / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(kcompiler.BundleError) as error:
        kcompiler.load(tmp_path / "model.kc", threads=1).explain(np.zeros((3, 20, 20), np.float32), stride=8)
    assert said in str(error.value)


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_beyond_all_bounds(original, tmp_path, number):
    shutil.copytree(original, tmp_path / "model.kc")
    text = (original / MANIFEST).read_text()
    start = text.index('"predicted_speedup":') + len('"predicted_speedup":')
    (tmp_path / "model.kc" / MANIFEST).write_text(text[:start] + number + text[text.index(",", start) :])
    with pytest.raises(kcompiler.BundleError, match=f"{MANIFEST}: (damaged|altered)"):
        kcompiler.load(tmp_path / "model.kc")
