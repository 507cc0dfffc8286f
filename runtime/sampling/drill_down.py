"""The cells of a drill-down: a coarse grid, the coarse cell nearest to each cell, and how many of them are refined.

Source: Nakandala, Kumar, Papakonstantinou, SIGMOD 2019, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.arrays import IntArray


def coarse_lines(count: int, step: int) -> IntArray:
    """Every ``step``-th line of ``count``, and the last line, int64 [N]."""
    return np.unique(np.append(np.arange(0, count, step), count - 1))


def coarse_cells(shape: tuple[int, int], step: int) -> IntArray:
    """Cells of the coarse grid, int64 [N], row by row."""
    rows, cols = (coarse_lines(count, step) for count in shape)
    return (rows[:, None] * shape[1] + cols).ravel()


@dataclass(frozen=True, slots=True, eq=False)
class Coarse:
    """The coarse grid of a drill-down.

    Attributes:
        cells: of the coarse grid, int64 [N], row by row.
        owner: int64 [cells of the grid], the number in ``cells`` of the one nearest to each.
        refined: number of coarse cells that are refined: all cells that they own are evaluated.
        most: largest number of cells evaluated in all.
    """

    cells: IntArray
    owner: IntArray
    refined: int
    most: int

    @classmethod
    def of(cls, shape: tuple[int, int], step: int, share: float) -> Coarse:
        """For a grid of ``shape`` (rows, cols), every ``step``-th line of it, and the ``share`` of the coarse cells to refine."""
        rows, cols = (coarse_lines(count, step) for count in shape)
        along_y, along_x = (np.abs(np.arange(count)[:, None] - lines).argmin(axis=1)
                            for count, lines in zip(shape, (rows, cols), strict=True))  # fmt: skip
        cells, owner = coarse_cells(shape, step), (along_y[:, None] * len(cols) + along_x).ravel()
        refined = round(share * len(cells))
        largest = np.sort(np.bincount(owner))[::-1][:refined]
        return cls(cells, owner, refined, int(len(cells) + np.maximum(largest - 1, 0).sum()))
