"""Chests as an X-ray shows them: two dark lungs in a brighter body, behind ribs, beside spine and heart.

Findings: ``nodule`` is a round bright spot in a lung, ``consolidation`` a larger hazy patch. Harmless: ribs, collar
bones, vessels, small calcified dots, a thin tube, a bright marker at the border.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.findings.drawing import UNIT_SIDE, Blot, Floats, Streams, coordinates, mix, ramp, smooth_noise

LABELS = ("normal", "nodule", "consolidation")

LEAST_AIR = 0.85
"""Share of lung in a pixel from which it counts as lung where a finding is put."""


@dataclass(frozen=True, slots=True)
class Chest:
    """Levels [side, side] without grain, and the share of lung in each pixel."""

    levels: Floats
    air: Floats


def draw(streams: Streams, finding: str, side: int) -> tuple[Floats, Floats]:
    """Levels [side, side] of the healthy chest, and with the finding."""
    chest = _chest(streams.anatomy, side)
    return chest.levels, _FINDINGS[finding](streams.finding, chest) if finding != "normal" else chest.levels


def grain(rng: np.random.Generator, side: int) -> Callable[[Floats], Floats]:
    """Noise of the detector, the same everywhere."""
    noise = rng.uniform(0.01, 0.03) * rng.standard_normal((side, side))
    return lambda levels: levels + noise


def _chest(rng: np.random.Generator, side: int) -> Chest:
    y, x = coordinates(side)
    spine = UNIT_SIDE / 2 + rng.uniform(-7, 7)
    aside = abs(x - spine)
    air = _air(rng, side, spine)
    body = ramp(rng.uniform(98, 110) - np.hypot(aside, 0.56 * np.clip(90 - y, 0, None)), 10)
    levels = mix(np.full((side, side), 0.06), rng.uniform(0.55, 0.65) + 0.03 * smooth_noise(rng, side, 6), body)
    levels = mix(levels, 0.7, rng.uniform(0.4, 0.7) * ramp(9 - aside, 5))
    lung = rng.uniform(0.2, 0.3) + 0.0004 * (y - 40) + 0.012 * smooth_noise(rng, side, 32)
    vessels = 0.05 * np.clip(smooth_noise(rng, side, 20), 0, None) * np.exp(-(((aside - 20) / 25) ** 2))
    levels = mix(levels, lung + vessels, air)
    levels = levels + _bones(rng, y, aside) * ramp(aside - 8, 8) * body
    return Chest(_with_distractors(rng, levels) ** rng.uniform(0.9, 1.12), air)


def _air(rng: np.random.Generator, side: int, spine: float) -> Floats:
    """Share of lung, [side, side]: two ovals, less the heart before one of them and the diaphragm below."""
    y, x = coordinates(side)
    air = np.zeros((side, side))
    outline = 1.8 * smooth_noise(rng, side, 7)
    for direction in (-1, 1):
        centre = rng.uniform(100, 108), spine + direction * rng.uniform(45, 50)
        half = rng.uniform(78, 88), rng.uniform(33, 38)
        distance = (abs((y - centre[0]) / half[0]) ** 2.4 + abs((x - centre[1]) / half[1]) ** 2.4) ** (1 / 2.4)
        floor = rng.uniform(168, 182) + 0.006 * (x - centre[1] + 8 * direction) ** 2
        air = np.maximum(air, ramp(np.minimum((1 - distance) * half[1] + outline, floor - y), 5))
    heart = np.hypot((y - rng.uniform(138, 150)) / rng.uniform(32, 40), (x - spine - rng.uniform(12, 20)) / rng.uniform(28, 36))
    visible: Floats = air * (1 - ramp((1 - heart) * 33, 5))
    return visible


def _bones(rng: np.random.Generator, y: Floats, aside: Floats) -> Floats:
    """What ribs and collar bones add, from the distance to the spine."""
    spacing, slope = rng.uniform(19, 24), rng.uniform(0.15, 0.4)
    waves = np.cos(2 * np.pi * (y - slope * aside - 0.004 * aside**2 - rng.uniform(0, spacing)) / spacing)
    ribs = rng.uniform(0.05, 0.1) * np.clip(1.8 * (waves - 0.35), 0, 1) * ramp(y - 25, 20) * ramp(200 - y, 30)
    collar = ramp(4.5 - abs(y - rng.uniform(34, 44) + rng.uniform(0.1, 0.3) * (aside - 30)), 3)
    bones: Floats = ribs + 0.12 * collar * ramp(90 - aside, 10)
    return bones


def _with_distractors(rng: np.random.Generator, levels: Floats) -> Floats:
    side = len(levels)
    y, x = coordinates(side)
    for _ in range(rng.integers(0, 4)):
        size = rng.uniform(1.5, 3)
        dot = Blot((rng.uniform(50, 170), rng.uniform(30, 194)), (size, size), 0.1, 0.5).opacity(rng, side)
        levels = mix(levels, 0.85, 0.8 * dot)
    if rng.random() < 0.3:
        tube = 112 + rng.uniform(-50, 50) + rng.uniform(-0.4, 0.4) * (y - 60) + 8 * np.sin(y / rng.uniform(20, 40))
        levels = mix(levels, 0.85, 0.6 * ramp(1.2 - abs(x - tube), 1.5) * (y < rng.uniform(80, 160)))
    if rng.random() < 0.4:
        top, left = rng.uniform(6, 16), rng.choice([rng.uniform(6, 16), rng.uniform(200, 208)])
        levels = np.where((abs(y - top) < 5) & (abs(x - left) < rng.uniform(2, 4)), 0.95, levels)
    return levels


def _place(rng: np.random.Generator, chest: Chest, half: tuple[float, float]) -> tuple[float, float]:
    """A centre around which lung reaches 80% of the half sides up, down, left and right."""
    side = len(chest.air)
    reach = 0.8 * np.array(half)
    around = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]) * reach
    while True:
        centre = rng.uniform((40, 25), (175, 199))
        rows, columns = ((centre + around) * side / UNIT_SIDE).astype(int).T
        if (chest.air[rows, columns] > LEAST_AIR).all():
            return float(centre[0]), float(centre[1])


def _nodule(rng: np.random.Generator, chest: Chest) -> Floats:
    half = rng.uniform(8.8, 12)
    spot = Blot(_place(rng, chest, (half, half)), (half, half), 0.1, 0.4).opacity(rng, len(chest.air))
    return mix(chest.levels, rng.uniform(0.68, 0.78), rng.uniform(0.6, 0.8) * spot)


def _consolidation(rng: np.random.Generator, chest: Chest) -> Floats:
    half = rng.uniform(19, 24), rng.uniform(18, 23)
    patch = Blot(_place(rng, chest, half), half, 0.3, 0.5).opacity(rng, len(chest.air))
    cloudy = np.clip(1 + 0.2 * smooth_noise(rng, len(chest.air), 30), 0, 1.3)
    return mix(chest.levels, rng.uniform(0.6, 0.7), np.clip(rng.uniform(0.75, 0.95) * patch * cloudy, 0, 1))


_FINDINGS = {"nodule": _nodule, "consolidation": _consolidation}
