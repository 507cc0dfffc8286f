"""A stationary Gaussian process over a grid (kriging), conditioned on measured cells one after the other.

Conditioning on a cell costs a product with the factors of the cells before it (a Cholesky factorisation column by column).
Posterior variances do not depend on values, so cells can be planned before their values are known.
Sources: Matheron, Economic Geology 1963 (kriging); Rasmussen and Williams, Gaussian Processes, 2006, section 4.2 (Matern).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kcompiler.runtime.arrays import DoubleArray, IntArray

NUGGET = 1e-3
"""Noise variance of a measurement, relative to the variance 1 of the process: models what a stationary process cannot follow."""
HALO = 4
"""Correlation lengths that a tile extends beyond its own cells: at that distance the detail's correlation is 0.005, and the trend
is determined mostly by nearer cells."""
NOTHING = 1e-6
"""Covariances below this are set to zero."""
TILE = 64
"""Side of a tile, in cells."""
GROWTH = 64
"""Initial capacity of a tile, in planned cells."""
TREND_SHARE, TREND_LENGTH = 0.5, 4.0
"""Share of the variance in a trend of longer correlation length, and the ratio of the lengths. Without a trend, the mean between
measured cells would revert to the mean of the whole map."""


def correlation(distance: DoubleArray) -> DoubleArray:
    """Correlation at a distance in correlation lengths: the weighted sum of a detail and a trend."""
    return (1 - TREND_SHARE) * matern(distance) + TREND_SHARE * matern(distance / TREND_LENGTH)


def matern(distance: DoubleArray) -> DoubleArray:
    """Matern 5/2 correlation at a distance in correlation lengths."""
    scaled = np.sqrt(5.0) * distance
    result: DoubleArray = (1 + scaled + scaled * scaled / 3) * np.exp(-scaled)
    return result


class Field:
    """Posterior mean and variance at every cell of a grid, given the cells measured so far.

    A large grid is divided into tiles that overlap by a halo of HALO correlation lengths; each tile is conditioned separately.

    Attributes:
        mean: posterior mean, float64 [cells].
        variance: posterior variance, float64 [cells], for a prior variance of 1; planned cells count as measured.
        surprises: squared standardised residuals: the squared prediction error at each cell before it was measured, over its
            predictive variance. They average 1 where the prior variance is 1, and more where the map varies more.
    """

    def __init__(self, shape: tuple[int, int], lengths: tuple[float, float]) -> None:
        """For a grid of ``shape`` (rows, cols), with correlation ``lengths`` (y, x) in cells."""
        self.shape = shape
        self.mean: DoubleArray = np.zeros(shape[0] * shape[1])
        self.variance: DoubleArray = np.ones(shape[0] * shape[1])
        self.surprises: list[float] = []
        self._planned: list[int] = []
        self._measured = 0
        numbers = np.arange(shape[0] * shape[1]).reshape(shape)
        self._tiles: list[_Tile] = []
        self._tiles_of: list[list[_Tile]] = [[] for _ in range(numbers.size)]
        rows, cols = (_cuts(size, length) for size, length in zip(shape, lengths, strict=True))
        for (top, bottom), (above, below) in rows:
            for (left, right), (before, after) in cols:
                cells = numbers[above:below, before:after]
                tile = _Tile(cells, numbers[top:bottom, left:right].ravel(), lengths)
                self._tiles.append(tile)
                for cell in cells.ravel():
                    self._tiles_of[cell].append(tile)

    @property
    def planned(self) -> IntArray:
        """Planned cells in order, int64 [planned]."""
        return np.array(self._planned, np.int64)

    @property
    def measured(self) -> IntArray:
        """Measured cells in order, int64 [measured]: the first of the planned cells."""
        return np.array(self._planned[: self._measured], np.int64)

    @property
    def bytes(self) -> int:
        """Memory of the factors."""
        return sum(tile.factors.nbytes for tile in self._tiles)

    def start_from(self, level: float) -> None:
        """Sets the prior mean of all cells; call this before the first measurement."""
        assert not self._measured, "cells are measured already"
        self.mean[:] = level
        for tile in self._tiles:
            tile.mean[:] = level

    def expect(self, cells: IntArray) -> None:
        """Prepares for planning ``cells``, int64 [N], which then takes less time; other cells may be planned as well."""
        for tile in self._tiles:
            tile.expect(cells)

    def plan(self, cell: int) -> None:
        """Updates the variance as if ``cell`` were measured; :meth:`measure` then takes values in the order of planning."""
        for tile in self._tiles_of[cell]:
            tile.plan(cell)
            self.variance[tile.own] = tile.variance[tile.own_numbers]
        self._planned.append(cell)

    def measure(self, value: float) -> None:
        """Conditions the mean on the value of the first planned cell that has not been measured."""
        cell = self._planned[self._measured]
        for tile in self._tiles_of[cell]:
            surprise = tile.measure(value)
            if cell in tile.own_set:
                self.surprises.append(surprise)
            self.mean[tile.own] = tile.mean[tile.own_numbers]
        self._measured += 1


class _Tile:
    """A rectangle of the grid with its halo, conditioned by sequential Cholesky factors of the covariance."""

    def __init__(self, cells: IntArray, own: IntArray, lengths: tuple[float, float]) -> None:
        """``cells`` [rows, cols] are cells of the grid; the field takes mean and variance of ``own`` [N] from this tile."""
        rows, cols = (np.arange(size) / length for size, length in zip(cells.shape, lengths, strict=True))
        quarter = correlation(np.hypot(rows[:, None], cols[None, :])).astype(np.float32)
        half = np.concatenate([quarter[:0:-1], quarter])
        self._correlation = np.concatenate([half[:, :0:-1], half], axis=1)  # by offset, (-rows, rows) x (-cols, cols)
        self._shape = cells.shape
        self._numbers = {int(cell): number for number, cell in enumerate(cells.ravel())}  # in the tile, by cell of the grid
        self.own, self.own_set = own, frozenset(own.tolist())
        self.own_numbers = np.array([self._numbers[cell] for cell in own.tolist()])
        self.factors = np.empty((cells.size, GROWTH), np.float32)
        self.mean, self.variance = np.zeros(cells.size), np.ones(cells.size)
        self._planned: list[tuple[int, float]] = []
        self._measured = 0
        self._expected: dict[int, int] = {}
        self._products, self._before = np.empty((0, cells.size), np.float32), 0

    def expect(self, cells: IntArray) -> None:
        """Computes the products of the rows of ``cells`` with the factors so far in a single matrix product."""
        numbers = [self._numbers[cell] for cell in cells.tolist() if cell in self._numbers]
        before = len(self._planned)
        self._expected, self._before = {number: row for row, number in enumerate(numbers)}, before
        self._products = self.factors[numbers, :before] @ self.factors[:, :before].T

    def plan(self, cell: int) -> None:
        number, count = self._numbers[cell], len(self._planned)
        if count == self.factors.shape[1]:
            self.factors = np.concatenate([self.factors, np.empty((len(self.factors), count), np.float32)], axis=1)
        (rows, cols), (y, x) = self._shape, divmod(number, self._shape[1])
        prior = self._correlation[rows - 1 - y : 2 * rows - 1 - y, cols - 1 - x : 2 * cols - 1 - x]
        covariance, first = prior.ravel(), 0
        if number in self._expected:
            covariance, first = covariance - self._products[self._expected[number]], self._before
        # einsum rather than BLAS: for so small a product, synchronising BLAS's threads takes longer than the product itself.
        covariance = covariance - np.einsum("ij,j->i", self.factors[:, first:count], self.factors[number, first:count])
        covariance[np.abs(covariance) < NOTHING] = 0.0  # products of tiny numbers would be denormal, which are slow
        variance = max(float(covariance[number]), 0.0) + NUGGET
        self.factors[:, count] = covariance / np.sqrt(variance)
        self.variance = np.maximum(self.variance - self.factors[:, count].astype(np.float64) ** 2, 0.0)
        self._planned.append((number, variance))

    def measure(self, value: float) -> float:
        """Conditions the mean on ``value``; returns the squared standardised residual."""
        number, variance = self._planned[self._measured]
        error = value - float(self.mean[number])
        self.mean += self.factors[:, self._measured] * (error / np.sqrt(variance))
        self._measured += 1
        return error * error / variance


def _cuts(size: int, length: float) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cuts an axis into tiles: for each its own cells, and these with the halo, as (start, stop)."""
    halo = int(np.ceil(HALO * length))
    parts = max(1, -(-size // TILE)) if size > TILE + 2 * halo else 1
    bounds = np.linspace(0, size, parts + 1).astype(int).tolist()
    return [((a, b), (max(0, a - halo), min(size, b + halo))) for a, b in pairwise(bounds)]
