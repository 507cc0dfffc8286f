"""The digest that a manifest carries of itself: a changed digit anywhere in the file shows, whatever it means.

It is the SHA-256 digest of the file's bytes in which its own 64 digits are zeros. It finds damage, not forgery: who alters the
file on purpose can write another digest.
"""

from __future__ import annotations

import hashlib

OPEN = "0" * 64
"""In the digest's place while it is computed."""


def sealed(text: str) -> bytes:
    """The bytes of a manifest whose digest, its last field, is still :data:`OPEN`, with its digest."""
    return _replaced(text, OPEN, hashlib.sha256(text.encode()).hexdigest()).encode()


def digest_of(text: str, seal: str) -> str:
    """What the digest of a manifest should be that has ``seal`` for one."""
    return hashlib.sha256(_replaced(text, seal, OPEN).encode()).hexdigest()


def _replaced(text: str, old: str, new: str) -> str:
    """``text`` with the last ``old`` replaced."""
    before, _, after = text.rpartition(old)
    return before + new + after
