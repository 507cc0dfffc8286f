"""A recipe that makes inputs of another size is told which it should make."""

from __future__ import annotations

import pytest
from networks import save

import kcompiler
from kcompiler.runtime.inputs.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"size": (24, 24), "mean": (0.0,) * 3, "std": (1.0,) * 3, "channel_order": "RGB"},
            r'takes \[3, 20, 28\]; say "size": \[20, 28\] in it$',
        ),
        (
            {"size": (20, 28), "mean": (0.0,), "std": (1.0,), "channel_order": "gray"},
            r'takes \[3, 20, 28\]; say "channel_order": "RGB" or "BGR" in it$',
        ),
    ],
)
def test_what_would_fit_is_named(recipe, message, tmp_path):
    path = save("chain", tmp_path / "model.onnx", 20, 28)
    with pytest.raises(kcompiler.UsageError, match=message):
        kcompiler.compile(path, patch=4, preprocessing=Preprocessing(resize="stretch", scale=1.0, **recipe))
