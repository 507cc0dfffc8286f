"""Names for new tensors and nodes."""

from __future__ import annotations


def fresh_name(stem: str, taken: set[str]) -> str:
    """``stem``, or ``stem`` and a number, that is not in ``taken`` yet, and is from now on."""
    name, count = stem, 1
    while name in taken:
        name, count = f"{stem}_{count}", count + 1
    taken.add(name)
    return name
