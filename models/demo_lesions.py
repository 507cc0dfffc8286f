"""Draw lesions of the demo's two kinds: irregular, of varied size, blended into the retina beneath."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skimage.transform import resize

Floats = npt.NDArray[np.float64]

LEAST_SIDE, MOST_SIDE = 16, 42
"""Sides of the box that a lesion is drawn in, in pixels; it fills 80 to 90% of it."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """A lesion by itself: how much it covers, [H, W] from 0 to 1, and its colour from that of the retina beneath."""

    opacity: Floats
    colour: Callable[[Floats], Floats]

    def over(self, retina: Floats) -> Floats:
        """``retina`` [H, W, 3] with the lesion over it, both from 0 to 1."""
        opacity = self.opacity[:, :, None]
        return retina * (1 - opacity) + self.colour(retina) * opacity


def haemorrhage(rng: np.random.Generator) -> Lesion:
    """Dark red blot with a ragged rim, uneven inside."""
    height, width = _sides(rng)
    blot = _blot(rng, height, width, rim=3.0)
    uneven = 1 + 0.15 * _smooth_noise(rng, height, width, cells=6)[:, :, None]
    darkening = np.array([rng.uniform(0.5, 0.7), rng.uniform(0.18, 0.38), rng.uniform(0.22, 0.42)])
    return Lesion(rng.uniform(0.8, 0.97) * blot, lambda retina: retina * darkening * uneven)


def exudate(rng: np.random.Generator) -> Lesion:
    """Cluster of small, sharp, bright yellow deposits that take on a little of the retina's shading."""
    height, width = _sides(rng)
    cluster = np.zeros((height, width))
    for _ in range(rng.integers(5, 11)):
        side = int(rng.integers(5, max(6, min(height, width) // 2 + 1)))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        deposit = cluster[top : top + side, left : left + side]
        np.maximum(deposit, _blot(rng, side, side, rim=1.2), out=deposit)
    yellow = np.array([rng.uniform(0.93, 1.0), rng.uniform(0.8, 0.92), rng.uniform(0.32, 0.55)])
    return Lesion(rng.uniform(0.75, 0.95) * cluster, lambda retina: yellow * (0.85 + 0.15 * retina / retina.max()))


def _sides(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a lesion; small ones are as frequent as large ones, long ones are rare."""
    side = rng.uniform(LEAST_SIDE, MOST_SIDE)
    stretch = rng.uniform(0.75, 1.33)
    height, width = np.clip([side * stretch, side / stretch], LEAST_SIDE, MOST_SIDE).round().astype(int)
    return int(height), int(width)


def _blot(rng: np.random.Generator, height: int, width: int, rim: float) -> Floats:
    """Opacity [height, width] of one ragged blot with a soft rim, ``rim`` pixels wide; 0 outside the box."""
    y = np.linspace(-1, 1, height + 2)[1:-1, None]
    x = np.linspace(-1, 1, width + 2)[None, 1:-1]
    distance = np.sqrt(y**2 + x**2) + 0.18 * _smooth_noise(rng, height, width, cells=5)
    softness = 2 * rim / min(height, width)
    inside = np.clip((0.75 - distance) / softness + 0.5, 0, 1)
    frame = np.clip((1 - np.maximum(abs(y), abs(x))) / softness, 0, 1)
    opacity: Floats = inside * frame
    return opacity


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Floats:
    """Noise [height, width] of about unit deviation that varies over ``cells`` spots a side."""
    coarse = rng.normal(size=(cells, cells))
    noise: Floats = resize(coarse, (height, width), order=3, mode="edge", clip=False)  # type: ignore[no-untyped-call]
    return noise
