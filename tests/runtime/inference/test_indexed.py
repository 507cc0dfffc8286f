"""Batches on a device: which runs are captured as CUDA graphs."""

from __future__ import annotations

from kcompiler.runtime.inference.indexed import Captures


def test_a_run_is_captured_once_its_addresses_recur():
    captures = Captures(most=1)
    assert captures.number((10, 20)) == -1
    captures.ran((10, 20, 30))  # the first run allocated its output
    assert captures.number((10, 20)) == -1, "its output would lie elsewhere"
    assert captures.number((10, 20, 30)) == 1
    assert captures.number((10, 20, 30)) == 1, "replayed"
    captures.ran((11, 20, 30))
    assert captures.number((11, 20, 30)) == -1, "as many as are kept"
