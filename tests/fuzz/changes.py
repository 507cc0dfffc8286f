"""Changes to the bytes of a file: some at random, and numbers that readers trip over where numbers are."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    65500,
    89478485,
    1 << 24,
)
HEAD = 400
"""Bytes in which most headers lie."""


def place(rng: Rng, content: bytes, width: int = 1) -> int:
    """A place in ``content``, as often in its head as in the rest."""
    end = max(len(content) - width, 1)
    return int(rng.integers(min(end, HEAD) if rng.random() < 0.6 else end))


def flipped(rng: Rng, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        changed[place(rng, content)] = int(rng.integers(256))
    return bytes(changed)


def numbered(rng: Rng, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        width, order = (1, 2, 4, 8)[int(rng.integers(4))], "<>"[int(rng.integers(2))]
        number = int(rng.choice(NUMBERS)) & ((1 << 8 * width) - 1)
        at = place(rng, content, width)
        changed[at : at + width] = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[width], number)
    return bytes(changed)


def cut(rng: Rng, content: bytes) -> bytes:
    return content[: int(rng.integers(len(content)))]


def doubled(rng: Rng, content: bytes) -> bytes:
    first, last = sorted(int(one) for one in rng.integers(0, len(content), 2))
    return content[:last] + content[first:last] * int(rng.integers(1, 20)) + content[last:]


def left_out(rng: Rng, content: bytes) -> bytes:
    first = place(rng, content)
    return content[:first] + content[first + int(rng.integers(1, 64)) :]


def filled(rng: Rng, content: bytes) -> bytes:
    first = place(rng, content)
    return content[:first] + bytes([int(rng.choice([0, 255, 32]))]) * int(rng.choice([1, 30, 5000])) + content[first:]


CHANGES: tuple[Callable[[Rng, bytes], bytes], ...] = (
    flipped,
    flipped,
    numbered,
    numbered,
    numbered,
    cut,
    doubled,
    left_out,
    filled,
)


def changed(rng: Rng, content: bytes) -> tuple[str, bytes]:
    """``content`` with one or two changes, and what they are."""
    chosen = [CHANGES[int(number)] for number in rng.integers(0, len(CHANGES), int(rng.integers(1, 3)))]
    for change in chosen:
        content = change(rng, content) if len(content) > 1 else content
    return "+".join(change.__name__ for change in chosen), content
