"""Trading time against rounding error: the fastest lowering of every node such that the total error stays within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.passes.lowering.table import Lowering


@dataclass(frozen=True, slots=True)
class Candidate:
    """A lowering of a node: predicted or measured seconds per position, and the relative rms error that it adds."""

    lowering: Lowering
    seconds: float
    error: float


def within_budget(candidates: Mapping[str, Sequence[Candidate]], budget: float) -> dict[str, Candidate]:
    """The fastest candidate of every node such that the root of the sum of squared errors is at most ``budget``.

    This is a Lagrangian relaxation: each node minimises seconds + rate * squared error. The rate, the same for all nodes, is the
    smallest that keeps the budget, by bisection.
    """

    def at(rate: float) -> dict[str, Candidate]:
        return {name: min(group, key=lambda c: (c.seconds + rate * c.error**2, c.error)) for name, group in candidates.items()}

    def error(chosen: Iterable[Candidate]) -> float:
        return float(np.sqrt(sum(c.error**2 for c in chosen)))

    chosen = at(0.0)
    if error(chosen.values()) <= budget:
        return chosen
    low, high = 0.0, 1e30  # the high rate selects the most exact candidates
    for _ in range(200):
        middle = np.sqrt(low * high) if low else high * 1e-3
        if middle in (low, high):
            break
        if error(at(middle).values()) <= budget:
            high = middle
        else:
            low = middle
    return at(high)
