"""What a compilation may meet is an error in a line, which names the model; an interrupt stays one."""

from __future__ import annotations

from pathlib import Path

import pytest

import kcompiler
from kcompiler.answered import answered


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (MemoryError("9 GB"), r"m\.onnx: takes more memory than there is \(9 GB\)"),
        (ImportError("x.so: failed to map segment from shared object"), "takes more memory than there is"),
        (RecursionError("too deep"), "its nodes follow each other too deeply"),
        (KeyError("k"), r"m\.onnx: KeyError: 'k' \(test_answered\.py, line \d+\); nothing was written\. This is a defect"),
        (kcompiler.ProviderError("no runtime"), "no runtime"),
    ],
)
def test_a_failure_is_a_line(failure, said):
    with pytest.raises(kcompiler.KCompilerError, match=said), answered(Path("m.onnx")):
        raise failure


def test_an_interrupt_stays_one():
    failure = ImportError("initialization failed")
    failure.__cause__ = KeyboardInterrupt()
    for raised in (KeyboardInterrupt(), failure):
        with pytest.raises(KeyboardInterrupt), answered(Path("m.onnx")):
            raise raised
