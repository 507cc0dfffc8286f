"""An interrupt that a library makes its own failure of is an interrupt, in Python as on the command line."""

from __future__ import annotations

import importlib

import pytest

from kcompiler.runtime.foreign import ForeignFailure, foreign
from kcompiler.runtime.inference.sessions import onnxruntime


def interrupted(*_: object) -> None:
    """As an extension module's import fails that was told to stop."""
    raise ImportError("initialization failed") from KeyboardInterrupt("SIGTERM")


def test_a_failure_is_told_in_its_own_words():
    with pytest.raises(ForeignFailure, match="too large"), foreign():
        raise ValueError("too large")


def test_an_interrupt_behind_a_failure_is_raised_in_its_place():
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), foreign():
        interrupted()


def test_an_interrupted_import_of_onnxruntime_is_no_missing_package(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", interrupted)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        onnxruntime()
