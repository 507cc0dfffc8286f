"""What the three kinds of picture are drawn with: coordinates, soft masks, smooth noise.

Lengths are pixels of a picture of 224 a side, whatever the side that is drawn; levels of grey go from 0 to 1.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

UNIT_SIDE = 224
"""Rows and columns of a picture in the unit of all lengths here."""

WOBBLES = np.arange(2, 6)
"""Waves around the outline of a blot."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Random numbers, apart for what a picture is made of: a finding draws none that the anatomy would have had."""

    anatomy: np.random.Generator
    finding: np.random.Generator
    grain: np.random.Generator


@cache
def coordinates(side: int) -> tuple[Floats, Floats]:
    """Centres of the pixels as (y [side, 1], x [1, side])."""
    centres: Floats = (np.arange(side, dtype=np.float64) + 0.5) * (UNIT_SIDE / side)
    return centres[:, None], centres[None, :]


def ramp(inside: Floats, softness: float) -> Floats:
    """Opacity that rises from 0 to 1 over ``softness`` around ``inside`` == 0."""
    opacity: Floats = np.clip(inside / softness + 0.5, 0, 1)
    return opacity


def mix(levels: Floats, colour: Floats | float, opacity: Floats) -> Floats:
    """``colour`` over ``levels``."""
    return levels + (colour - levels) * opacity


def bump(position: Floats, centre: float, half: float) -> Floats:
    """Smooth hill of height 1 around ``centre``, exactly 0 from ``half`` away on."""
    hill: Floats = np.cos(np.clip((position - centre) / half, -1, 1) * (np.pi / 2)) ** 2
    return hill


def smooth_noise(rng: np.random.Generator, side: int, cells: int) -> Floats:
    """Noise [side, side] of about unit deviation that varies over ``cells`` spots a side."""
    across = _spread(side, cells)
    noise: Floats = across @ rng.normal(size=(cells, cells)) @ across.T
    return noise


def wavy(rng: np.random.Generator, side: int, cells: int) -> Floats:
    """Noise [1, side] of about unit deviation that varies over ``cells`` places."""
    wave: Floats = (_spread(side, cells) @ rng.normal(size=cells))[None, :]
    return wave


@cache
def _spread(side: int, cells: int) -> Floats:
    """Weights [side, cells] of a Gaussian window around every cell; their squares add up to 1."""
    distance = (np.arange(side)[:, None] + 0.5) * cells / side - (np.arange(cells)[None, :] + 0.5)
    weights = np.exp(-(distance**2))
    spread: Floats = weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return spread


@dataclass(frozen=True, slots=True)
class Blot:
    """A spot with an uneven outline: centre and half sides (y, x), how ragged from 0 to 1, width of the soft rim in radii."""

    centre: tuple[float, float]
    half: tuple[float, float]
    ragged: float
    rim: float

    def opacity(self, rng: np.random.Generator, side: int) -> Floats:
        """Opacity [side, side]; 0 outside the box of the half sides."""
        y, x = coordinates(side)
        down, right = (y - self.centre[0]) / self.half[0], (x - self.centre[1]) / self.half[1]
        # Only the part around the spot: angles are slow to compute.
        rows, columns = np.flatnonzero(abs(down) < 1), np.flatnonzero(abs(right) < 1)
        result = np.zeros((side, side))
        if rows.size and columns.size:
            near = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            result[near] = self._opacity(rng, down[rows], right[:, columns])
        return result

    def _opacity(self, rng: np.random.Generator, down: Floats, right: Floats) -> Floats:
        angle, distance = np.arctan2(down, right), np.hypot(down, right)
        phases, sizes = rng.uniform(0, 2 * np.pi, size=4), rng.uniform(0.2, 1, size=4)
        waves = (sizes * np.cos(WOBBLES * angle[..., None] + phases)).sum(axis=-1) / sizes.sum()
        radius = 1 - self.ragged * (0.5 + 0.5 * waves)
        opacity: Floats = np.clip((1 - distance / radius) / self.rim, 0, 1)
        return opacity
