"""A smooth field over a grid, conditioned on the cells that were measured, one after the other.

The field is a stationary Gaussian process (kriging). Conditioning on a cell costs one product with what is kept of the
cells before it, and where to measure next can be planned before any value is known: variances do not depend on values.
Sources: Matheron, Economic Geology 1963 (kriging); Rasmussen and Williams, Gaussian Processes, 2006, section 4.2 (Matern).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, IntArray

NUGGET = 1e-3
"""Variance of what is measured beside the field's own, which is 1: what a stationary field cannot follow."""
HALO = 4
"""Correlation lengths that a tile knows about around its own cells: there the detail's correlation is 0.005, and nearer cells
tell most about the trend."""
NOTHING = 1e-6
"""A covariance below this is none."""
TILE = 64
"""Cells a side of a tile."""
GROWTH = 64
"""Cells that a tile has room for at first."""
TREND_SHARE, TREND_LENGTH = 0.5, 4.0
"""Share of the variance that varies over longer ways, and how many times longer: without it the mean between measured cells
would fall back to the mean of the whole map."""


def correlation(distance: DoubleArray) -> DoubleArray:
    """At a distance in correlation lengths: a detail and a trend."""
    return (1 - TREND_SHARE) * matern(distance) + TREND_SHARE * matern(distance / TREND_LENGTH)


def matern(distance: DoubleArray) -> DoubleArray:
    """Matern 5/2 correlation at a distance in correlation lengths."""
    scaled = np.sqrt(5.0) * distance
    result: DoubleArray = (1 + scaled + scaled * scaled / 3) * np.exp(-scaled)
    return result


class Field:
    """Mean and variance of every cell of a grid, given the cells measured so far.

    A large grid is made of tiles that overlap as far as cells are correlated; each is conditioned by itself.

    Attributes:
        mean: float64 [cells].
        variance: float64 [cells], of a field whose variance is 1; counts planned cells as measured.
        surprises: squared errors of the mean at each cell before it was measured, over their variance: 1 on average where
            the field has the variance 1, larger where it varies more.
    """

    def __init__(self, shape: tuple[int, int], lengths: tuple[float, float]) -> None:
        """For a grid of ``shape`` (rows, cols) whose cells are correlated over ``lengths`` (y, x), in cells."""
        self.shape = shape
        self.mean: DoubleArray = np.zeros(shape[0] * shape[1])
        self.variance: DoubleArray = np.ones(shape[0] * shape[1])
        self.surprises: list[float] = []
        self._planned: list[int] = []
        self._measured = 0
        numbers = np.arange(shape[0] * shape[1]).reshape(shape)
        self._tiles: list[_Tile] = []
        self._of: list[list[_Tile]] = [[] for _ in range(numbers.size)]
        rows, cols = (_cuts(size, length) for size, length in zip(shape, lengths, strict=True))
        for (top, bottom), (above, below) in rows:
            for (left, right), (before, after) in cols:
                cells = numbers[above:below, before:after]
                tile = _Tile(cells, numbers[top:bottom, left:right].ravel(), lengths)
                self._tiles.append(tile)
                for cell in cells.ravel():
                    self._of[cell].append(tile)

    @property
    def planned(self) -> IntArray:
        """Cells in the order they were planned in, int64 [planned]."""
        return np.array(self._planned, np.int64)

    @property
    def measured(self) -> IntArray:
        """The first of the planned cells, whose values are known."""
        return np.array(self._planned[: self._measured], np.int64)

    @property
    def bytes(self) -> int:
        """Held at present."""
        return sum(tile.factors.nbytes for tile in self._tiles)

    def start_from(self, level: float) -> None:
        """The mean of every cell before anything is measured."""
        assert not self._measured, "cells are measured already"
        self.mean[:] = level
        for tile in self._tiles:
            tile.mean[:] = level

    def expect(self, cells: IntArray) -> None:
        """Says that ``cells`` are likely to be planned next, which then takes less time; others may be planned as well."""
        for tile in self._tiles:
            tile.expect(cells)

    def plan(self, cell: int) -> None:
        """Counts ``cell`` as measured from now on; its value is told by :meth:`measure`, in the order of plans."""
        for tile in self._of[cell]:
            tile.plan(cell)
            self.variance[tile.own] = tile.variance[tile.own_places]
        self._planned.append(cell)

    def measure(self, value: float) -> None:
        """The value of the first planned cell that has none yet."""
        cell = self._planned[self._measured]
        for tile in self._of[cell]:
            surprise = tile.measure(value)
            if cell in tile.own_set:
                self.surprises.append(surprise)
            self.mean[tile.own] = tile.mean[tile.own_places]
        self._measured += 1


class _Tile:
    """A rectangle of the grid with its surroundings, conditioned by sequential factors of the covariance."""

    def __init__(self, cells: IntArray, own: IntArray, lengths: tuple[float, float]) -> None:
        """``cells`` [rows, cols] of the grid, of which ``own`` [N] are this tile's to tell about."""
        rows, cols = (np.arange(size) / length for size, length in zip(cells.shape, lengths, strict=True))
        quarter = correlation(np.hypot(rows[:, None], cols[None, :])).astype(np.float32)
        half = np.concatenate([quarter[:0:-1], quarter])
        self._correlation = np.concatenate([half[:, :0:-1], half], axis=1)  # of what lies [-rows, rows] x [-cols, cols] away
        self._shape = cells.shape
        self._places = {int(cell): place for place, cell in enumerate(cells.ravel())}
        self.own, self.own_set = own, frozenset(own.tolist())
        self.own_places = np.array([self._places[cell] for cell in own.tolist()])
        self.factors = np.empty((cells.size, GROWTH), np.float32)
        self.mean, self.variance = np.zeros(cells.size), np.ones(cells.size)
        self._planned: list[tuple[int, float]] = []
        self._measured = 0
        self._expected: dict[int, int] = {}
        self._products, self._before = np.empty((0, cells.size), np.float32), 0

    def expect(self, cells: IntArray) -> None:
        """Multiplies out at once what planning ``cells`` would have to multiply with the factors so far."""
        places = [self._places[cell] for cell in cells.tolist() if cell in self._places]
        before = len(self._planned)
        self._expected, self._before = {place: number for number, place in enumerate(places)}, before
        self._products = self.factors[places, :before] @ self.factors[:, :before].T

    def plan(self, cell: int) -> None:
        place, count = self._places[cell], len(self._planned)
        if count == self.factors.shape[1]:
            self.factors = np.concatenate([self.factors, np.empty((len(self.factors), count), np.float32)], axis=1)
        (rows, cols), (y, x) = self._shape, divmod(place, self._shape[1])
        away = self._correlation[rows - 1 - y : 2 * rows - 1 - y, cols - 1 - x : 2 * cols - 1 - x]
        covariance, first = away.ravel(), 0
        if place in self._expected:
            covariance, first = covariance - self._products[self._expected[place]], self._before
        # Not a product of BLAS: its threads take longer to meet than so small a product takes.
        covariance = covariance - np.einsum("ij,j->i", self.factors[:, first:count], self.factors[place, first:count])
        covariance[np.abs(covariance) < NOTHING] = 0.0  # products of next to nothing end in denormal numbers, which are slow
        variance = max(float(covariance[place]), 0.0) + NUGGET
        self.factors[:, count] = covariance / np.sqrt(variance)
        self.variance = np.maximum(self.variance - self.factors[:, count].astype(np.float64) ** 2, 0.0)
        self._planned.append((place, variance))

    def measure(self, value: float) -> float:
        place, variance = self._planned[self._measured]
        error = value - float(self.mean[place])
        self.mean += self.factors[:, self._measured] * (error / np.sqrt(variance))
        self._measured += 1
        return error * error / variance


def _cuts(size: int, length: float) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cuts an axis into tiles: of each, what is its own and what it knows about, (start, stop) in cells."""
    halo = int(np.ceil(HALO * length))
    parts = max(1, -(-size // TILE)) if size > TILE + 2 * halo else 1
    bounds = np.linspace(0, size, parts + 1).astype(int).tolist()
    return [((a, b), (max(0, a - halo), min(size, b + halo))) for a, b in pairwise(bounds)]
