"""The batches of a map model: which cells of the grid each iteration of its Loop evaluates.

Scores stand in a table [cells + 2]: the uncovered image's in front, then those of the grid's cells, row by row, then a place
for positions that only fill a batch. Numbers in that table are called slots here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from kcompiler.passes.deployment.builder import Builder
from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.inputs.positions import Grid
from kcompiler.runtime.sampling.drill_down import Coarse

UNCOVERED_SLOT, FIRST_SLOT = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """The second round of a drill-down, whose cells depend on the scores of the first.

    Attributes:
        coarse: the cells of the first round, and which of them is nearest to each cell.
        order: all other cells, int64 [N], in the order in which those chosen are evaluated.
        size: positions in a batch.
    """

    coarse: Coarse
    order: IntArray
    size: int

    @property
    def batches(self) -> list[int]:
        """Positions of each batch, at most: the cells refined at the map's borders may be fewer."""
        whole, rest = divmod(self.coarse.most - len(self.coarse.cells), self.size)
        return [self.size] * whole + [rest] * bool(rest)


@dataclass(frozen=True, slots=True, eq=False)
class Scheduled:
    """A grid's positions in the batches that they are evaluated in.

    Attributes:
        grid: all positions.
        parts: cells of the grid, batch by batch: all of them, or those of the first round of a drill-down.
        refinement: the second round of a drill-down; None where ``parts`` are all cells.
        least: positions that the incremental model is given at the least, so that none of its micro-batches is empty: WebGPU's
            convolution fails on no regions.
    """

    grid: Grid
    parts: Sequence[IntArray]
    refinement: Refinement | None = None
    least: int = 1

    @property
    def cells(self) -> int:
        return self.grid.shape[0] * self.grid.shape[1]

    @property
    def batches(self) -> list[int]:
        """Positions of each batch; in a second round, at most."""
        return [*map(len, self.parts), *(self.refinement.batches if self.refinement is not None else [])]

    @property
    def slots(self) -> int:
        """Length of the table of scores."""
        return self.cells + 2

    @property
    def positions(self) -> IntArray:
        """(y, x) of each slot, int64 [slots, 2]; the first and the last cover the corner, which any patch may."""
        corner = np.zeros((1, 2), np.int64)
        return np.concatenate([corner, self.grid.positions, corner])

    def evaluated(self, body: Builder, number: str, first: str, scores: str) -> str:
        """Emits the slots, int64 [n], of an iteration: the uncovered image's in iteration 0, then those of batch ``first`` on.

        Args:
            body: of the Loop.
            number: of the iteration, int64 [].
            first: batch, int64 [].
            scores: float32 [slots], those known; NaN elsewhere.
        """
        batch = body("Where", body("Equal", number, body.constant(0)), body.constant(0), body("Add", number, first))
        slots = np.concatenate([[UNCOVERED_SLOT], np.concatenate(self.parts) + FIRST_SLOT])
        starts = np.cumsum([0, 1, *map(len, self.parts)])
        later = len(self.refinement.batches) if self.refinement is not None else 0
        starts_of = body.constant(np.append(starts, np.full(later, starts[-1])))
        start, stop = (body("Gather", starts_of, at) for at in (batch, body("Add", batch, body.constant(1))))
        planned = body.part(body.constant(slots), start, stop)
        if self.refinement is None:
            return planned
        return body("Concat", planned, self._refined(body, batch, scores, self.refinement), axis=0)

    def filled(self, body: Builder, slots: str) -> str:
        """Emits ``slots`` (int64 [n], n >= 1), the last of them repeated until there are :attr:`least`.

        Not another position, whose regions might be larger: all regions of a batch are computed at the largest extent.
        """
        if self.least == 1:
            return slots
        count = body("Squeeze", body("Shape", slots))
        numbers = body("Range", body.constant(0), body("Max", count, body.constant(self.least)), body.constant(1))
        return body("Gather", slots, body("Min", numbers, body("Sub", count, body.constant(1))), axis=0)

    def _refined(self, body: Builder, batch: str, scores: str, refinement: Refinement) -> str:
        """Emits the slots of a batch of the second round; none in the first round.

        Where not all scores of the first round are known, or fewer cells are refined than at most, the last slot fills the batch.
        """
        coarse, size = refinement.coarse, refinement.size
        known = body("Gather", scores, body.constant(coarse.cells + FIRST_SLOT))
        drop = body("Sub", body("Gather", scores, body.constant(UNCOVERED_SLOT)), known)
        _, sensitive = body.several("TopK", [drop, body.constant([coarse.refined])], 2)
        none, each = (body.constant(values(count, np.int64)) for values, count in
                      ((np.zeros, len(coarse.cells)), (np.ones, coarse.refined)))  # fmt: skip
        refined = body("Gather", body("ScatterElements", none, sensitive, each), body.constant(coarse.owner[refinement.order]))
        order = body.constant(refinement.order + FIRST_SLOT)
        chosen = body("Compress", order, body("Cast", refined, to=TensorProto.BOOL), axis=0)
        padding = np.full(len(refinement.batches) * size, self.slots - 1)

        missing = body("ReduceMax", body("Cast", body("IsNaN", known), to=TensorProto.INT64), keepdims=0)
        count = body("Mul", body("Squeeze", body("Shape", chosen)), body("Sub", body.constant(1), missing))
        later = body("Sub", batch, body.constant(1 + len(self.parts)))
        start = body("Mul", body("Max", later, body.constant(0)), body.constant(size))
        full = body("Min", body("Add", start, body.constant(size)), count)
        at_least = body("Max", full, body("Add", start, body.constant(1)))
        stop = body("Where", body("Less", later, body.constant(0)), body.constant(0), at_least)
        listed = body("Concat", body.part(chosen, body.constant(0), count), body.constant(padding), axis=0)
        return body.part(listed, start, stop)
