"""Sections of a retina as optical coherence tomography shows them: bent layers of unequal brightness under speckle.

Findings: ``fluid`` is one or two dark cysts between the layers, ``drusen`` lifts the bright bottom layer into one or
two grey domes, ``membrane`` is a bright blot at and below that layer. Harmless: shadows of vessels, a foveal pit,
small bright dots, haze in front of the retina.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.findings.drawing import UNIT_SIDE, Blot, Floats, Streams, bump, coordinates, mix, ramp, smooth_noise, wavy

LABELS = ("normal", "fluid", "drusen", "membrane")

DEPTHS = (-0.03, 0, 0.1, 0.13, 0.28, 0.31, 0.42, 0.45, 0.52, 0.55, 0.78, 0.8, 0.85, 0.87, 0.9, 1, 1.04)
LEVELS = (0.05, 0.7, 0.62, 0.43, 0.48, 0.33, 0.3, 0.48, 0.48, 0.24, 0.26, 0.62, 0.66, 0.42, 0.85, 0.88, 0.45)
"""Brightness of the layers at depths from 0, the retina's surface, to 1, its bottom."""


@dataclass(frozen=True, slots=True)
class Retina:
    """Levels [side, side] without grain, and the y of surface and bottom at each column, [1, side]."""

    levels: Floats
    surface: Floats
    bottom: Floats

    def at(self, x: float) -> tuple[float, float]:
        """The y of surface and bottom at ``x``."""
        column = int(x * self.surface.shape[1] / UNIT_SIDE)
        return float(self.surface[0, column]), float(self.bottom[0, column])


def draw(streams: Streams, finding: str, side: int) -> tuple[Floats, Floats]:
    """Levels [side, side] of the healthy section, and with the finding."""
    retina = _retina(streams.anatomy, side)
    return retina.levels, _FINDINGS[finding](streams.finding, retina) if finding != "normal" else retina.levels


def grain(rng: np.random.Generator, side: int) -> Callable[[Floats], Floats]:
    """Speckle: stronger where it is bright, longer along the rows."""
    strength = rng.uniform(0.15, 0.28)
    speckle = rng.standard_normal((side, side))
    speckle = 0.75 * speckle + 0.65 * np.roll(speckle, 1, axis=1)
    floor = rng.uniform(0.01, 0.03) * rng.standard_normal((side, side))
    return lambda levels: levels * (1 + strength * speckle) + floor


def _retina(rng: np.random.Generator, side: int) -> Retina:
    y, x = coordinates(side)
    middle = (x - UNIT_SIDE / 2) / UNIT_SIDE
    bottom = rng.uniform(120, 160) + rng.uniform(-24, 24) * middle + rng.uniform(-40, 60) * middle**2
    bottom = bottom + rng.uniform(0.3, 1.2) * wavy(rng, side, 10)
    pit = rng.uniform(0, 18) * np.exp(-(((x - rng.uniform(60, 164)) / rng.uniform(18, 35)) ** 2))
    surface = bottom - rng.uniform(62, 82) + pit + rng.uniform(0.3, 1.5) * wavy(rng, side, 8)
    depth = (y - surface) / (bottom - surface) + 0.006 * smooth_noise(rng, side, 24)
    layers = np.interp(depth, DEPTHS, np.array(LEVELS) * rng.uniform(0.88, 1.12, size=len(LEVELS)))
    below = np.clip(y - bottom, 0, None)
    choroid = (1 + 0.22 * smooth_noise(rng, side, 22)) * np.exp(-below / rng.uniform(28, 60))
    levels = np.where(depth > DEPTHS[-1], layers * choroid, layers * (1 + 0.06 * smooth_noise(rng, side, 30)))
    return Retina(_with_distractors(rng, levels, depth) * rng.uniform(0.85, 1.1), surface, bottom)


def _with_distractors(rng: np.random.Generator, levels: Floats, depth: Floats) -> Floats:
    side = len(levels)
    _, x = coordinates(side)
    for _ in range(rng.integers(0, 4)):
        shadow = rng.uniform(0.15, 0.4) * np.exp(-(((x - rng.uniform(0, UNIT_SIDE)) / rng.uniform(2, 5)) ** 2))
        levels = levels * (1 - shadow * (depth > 0.05))
    for _ in range(rng.integers(0, 5)):
        centre, size = rng.uniform(40, 150), rng.uniform(2, 4)
        dot = Blot((centre, rng.uniform(0, UNIT_SIDE)), (size, size), 0.1, 0.5).opacity(rng, side)
        levels = mix(levels, 0.8, 0.8 * dot * ((depth > 0.1) & (depth < 0.8)))
    haze = np.clip(smooth_noise(rng, side, 5), 0, None) * rng.uniform(0, 0.05)
    return levels + haze * (depth < 0)


def _fluid(rng: np.random.Generator, retina: Retina) -> Floats:
    x = rng.uniform(45, UNIT_SIDE - 45)
    surface, bottom = retina.at(x)
    half_height = rng.uniform(9, max(9.5, 0.27 * (bottom - surface)))
    cyst = Blot((surface + rng.uniform(0.44, 0.52) * (bottom - surface), x), (half_height, rng.uniform(9.5, 20)), 0.15, 0.25)
    opacity = cyst.opacity(rng, len(retina.levels))
    if rng.random() < 0.4:
        half = rng.uniform(0.6, 0.9) * half_height, rng.uniform(5, 8)
        aside = Blot((cyst.centre[0], x + cyst.half[1] + rng.uniform(-3, 4)), half, 0.15, 0.3)
        opacity = np.maximum(opacity, aside.opacity(rng, len(retina.levels)))
    return mix(retina.levels, rng.uniform(0.03, 0.1), 0.95 * opacity)


def _drusen(rng: np.random.Generator, retina: Retina) -> Floats:
    y, x = coordinates(len(retina.levels))
    centre, half, height = rng.uniform(40, UNIT_SIDE - 40), rng.uniform(10, 20), rng.uniform(13, 20)
    lift = height * np.sqrt(bump(x, centre, half))  # rounder than the bump itself
    if rng.random() < 0.4:
        aside = centre + rng.choice([-1, 1]) * rng.uniform(0.8, 1.2) * half
        lift = np.maximum(lift, rng.uniform(0.5, 0.9) * height * np.sqrt(bump(x, aside, 0.5 * half)))
    roof = retina.bottom - 3 - lift
    lifted = np.clip(lift / 3, 0, 1)
    dome = ramp(np.minimum(y - roof, retina.bottom + 1 - y), 2) * lifted
    levels = mix(retina.levels, rng.uniform(0.36, 0.48) * (1 + 0.08 * smooth_noise(rng, len(retina.levels), 40)), dome)
    return mix(levels, rng.uniform(0.78, 0.9), ramp(3.2 - abs(y - roof), 2) * lifted)


def _membrane(rng: np.random.Generator, retina: Retina) -> Floats:
    x = rng.uniform(40, UNIT_SIDE - 40)
    half = rng.uniform(12, 16), rng.uniform(15, 23)
    blot = Blot((retina.at(x)[1] + rng.uniform(2, 9), x), half, 0.25, 0.45)
    colour = rng.uniform(0.85, 1.0) * (1 + 0.1 * smooth_noise(rng, len(retina.levels), 45))
    return mix(retina.levels, colour, 0.95 * blot.opacity(rng, len(retina.levels)))


_FINDINGS = {"fluid": _fluid, "drusen": _drusen, "membrane": _membrane}
