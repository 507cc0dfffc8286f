"""Sizes and checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kcompiler.runtime.records import Record


class FileRecord(Record):
    """Size and checksum of a file.

    Attributes:
        bytes: its size.
        sha256: SHA-256 digest of its content, in hexadecimal.
    """

    bytes: int
    sha256: str


def file_record(path: Path) -> FileRecord:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return FileRecord(bytes=path.stat().st_size, sha256=digest.hexdigest())
