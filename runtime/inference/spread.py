"""A sample of a grid's batches that takes as long, for each position, as the whole grid."""

from __future__ import annotations

from collections.abc import Sequence

from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.inference.engine import Engine


def spread(engine: Engine, positions: IntArray, sample: int) -> list[IntArray]:
    """Chooses whole batches, of about ``sample`` positions together, that represent the grid's mean work.

    The grid's batches are sorted by predicted work and divided into equal parts, and the middle batch of each part is taken. (If
    taken evenly in the order of the driver, 320 of 3,000 positions had up to 2% less work than all, 160 up to 5%.) Each worker
    gets the same number of batches.
    """
    batches: Sequence[IntArray] = sorted((positions[part] for part in engine.batches(positions)), key=engine.work)
    rounds = -(-sample * len(batches) // (len(positions) * engine.workers.count))
    count = min(len(batches), max(1, rounds) * engine.workers.count)
    return [batches[(2 * number + 1) * len(batches) // (2 * count)] for number in range(count)]
