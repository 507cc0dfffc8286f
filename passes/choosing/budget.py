"""Trading seconds against rounding: the fastest lowering of every node whose errors together stay within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.passes.lowering.table import Lowering


@dataclass(frozen=True, slots=True)
class Candidate:
    """A lowering of a node: predicted or measured seconds a position, and the relative rms error it adds."""

    lowering: Lowering
    seconds: float
    error: float


def within_budget(candidates: Mapping[str, Sequence[Candidate]], budget: float) -> dict[str, Candidate]:
    """The fastest candidate of every node such that their errors, added in squares, stay within ``budget``.

    Seconds and squared errors are traded at one rate for all nodes, the lowest that keeps the budget.
    """

    def at(rate: float) -> dict[str, Candidate]:
        return {name: min(of, key=lambda c: (c.seconds + rate * c.error**2, c.error)) for name, of in candidates.items()}

    def error(chosen: Iterable[Candidate]) -> float:
        return float(np.sqrt(sum(c.error**2 for c in chosen)))

    chosen = at(0.0)
    if error(chosen.values()) <= budget:
        return chosen
    low, high = 0.0, 1e30  # at the high rate only the most exact candidates are left
    for _ in range(200):
        middle = np.sqrt(low * high) if low else high * 1e-3
        if middle in (low, high):
            break
        if error(at(middle).values()) <= budget:
            high = middle
        else:
            low = middle
    return at(high)
