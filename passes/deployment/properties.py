"""Metadata of a map model: what a program needs of the card to run it, for languages without a JSON parser at hand."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from kcompiler.passes.deployment.batches import Scheduled
from kcompiler.runtime.deployed import CARD_FORMAT, TestVector

PREFIX = "kcompiler."


def add_properties(path: Path, scheduled: Scheduled, test: TestVector) -> None:
    """Adds metadata to the model in the file ``path``, which every runtime gives as a map of strings (ONNX: metadata_props).

    ``kcompiler.format`` is the version of the card, ``kcompiler.batches`` the number of batches. ``kcompiler.test.*`` describe
    the test vector: the number of its ``batches``, which are the first, the ``fill`` of every channel, the ``class`` and the
    ``tolerance``.
    """
    first, tested = test.batches
    assert first == 0
    properties = {
        "format": CARD_FORMAT,
        "batches": len(scheduled.batches),
        "test.batches": tested,
        "test.fill": test.fill,
        "test.class": test.chosen,
        "test.tolerance": test.tolerance,
    }
    model = onnx.load(path, load_external_data=False)
    helper.set_model_props(model, {f"{PREFIX}{name}": str(value) for name, value in properties.items()})
    path.write_bytes(model.SerializeToString())
