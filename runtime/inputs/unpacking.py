"""How much compressed data would unpack to, found without keeping it: for libraries that unpack whatever they are given."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

BLOCK = 1 << 20
RATIO = 1032
"""Bytes that zlib can make of one."""


class Unpacker(Protocol):
    """An incremental decompressor."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def unpacks_beyond(parts: Iterable[bytes], most: int, start: Callable[[], Unpacker]) -> bool:
    """Whether ``parts``, each compressed by itself, unpack to more than ``most`` bytes in all. Damage is for others to find."""
    total = 0
    for part in parts:
        unpacker, rest = start(), part
        while rest or not getattr(unpacker, "needs_input", True):
            try:
                made = len(unpacker.decompress(rest, BLOCK))
            except (zlib.error, lzma.LZMAError, EOFError):
                break
            rest = getattr(unpacker, "unconsumed_tail", b"")
            total += made
            if total > most:
                return True
            if not made:
                break
    return False
