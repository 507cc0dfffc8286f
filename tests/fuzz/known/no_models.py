"""Files that hold no model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.cases import Case, link_loop, sparse
from tests.fuzz.known.making import MODEL, plain


def no_models() -> Iterator[Case]:
    yield "no bytes", {MODEL: b""}
    yield "folder", {MODEL: Path.mkdir}
    yield "pipe", {MODEL: os.mkfifo}
    yield "link loop", {MODEL: link_loop}
    yield "sparse file", {MODEL: sparse(1 << 40)}
    yield "text", {MODEL: b"hello\nworld\n" * 1000}
    yield "zeros", {MODEL: bytes(1 << 20)}
    yield "name not in UTF-8", {MODEL: plain().SerializeToString().replace(b"conv", b"co\xe4v")}
