"""A bundle that takes pictures, for the tests of ``kcompiler explain``."""

from __future__ import annotations

import json

import pytest
from networks import save

import kcompiler

SIZE = (24, 28)
RECIPE = {"size": SIZE, "resize": "crop", "shorter_side": 28, "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3,
          "channel_order": "RGB", "labels": ["a", "b", "c", "d", "e"]}  # fmt: skip


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    save("chain", folder / "model.onnx", *SIZE)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    compiled = kcompiler.compile(folder / "model.onnx", patch=5, preprocessing=folder / "recipe.json")
    return compiled.save(folder / "model.kc")
