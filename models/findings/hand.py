"""Fingers as an X-ray shows them: bright tapered bones with gaps for the joints, in darker soft tissue.

Findings: ``fracture`` is a dark jagged line across a bone whose far part is shifted, ``cyst`` a dark oval in a bone.
Harmless: rings, and the growth lines near a bone's end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.findings.drawing import UNIT_SIDE, Floats, Streams, bump, coordinates, mix, ramp, smooth_noise

LABELS = ("normal", "fracture", "cyst")

JOINT = 4.0
"""Gap between two bones."""

BORDER = 32.0
"""No finding has its centre nearer to the picture's border."""


@dataclass(frozen=True, slots=True)
class Finger:
    """One ray of bones: foot (y, x), direction from upright in radians, its bones as (start, end, half width)."""

    foot: tuple[float, float]
    angle: float
    bones: tuple[tuple[float, float, float], ...]

    def frame(self, side: int) -> tuple[Floats, Floats]:
        """Distance along the finger, and across it, of every pixel."""
        y, x = coordinates(side)
        up, right = self.foot[0] - y, x - self.foot[1]
        return up * np.cos(self.angle) + right * np.sin(self.angle), right * np.cos(self.angle) - up * np.sin(self.angle)

    def point(self, along: float) -> Floats:
        """The (y, x) on the finger's middle line."""
        return np.array([self.foot[0] - along * np.cos(self.angle), self.foot[1] + along * np.sin(self.angle)])


@dataclass(frozen=True, slots=True)
class Hand:
    """Soft tissue alone, levels [side, side]; the fingers before it; and what makes the bones uneven."""

    tissue: Floats
    fingers: tuple[Finger, ...]
    texture: Floats
    ring: tuple[int, float] | None
    growth_lines: bool

    def levels(self, changed: int = -1, shift: Floats | float = 0.0, widening: Floats | float = 0.0) -> Floats:
        """Levels [side, side]; the bones of finger ``changed`` shifted across it and widened."""
        levels = self.tissue
        for number, finger in enumerate(self.fingers):
            along, across = finger.frame(len(levels))
            table = np.arange(0.0, 320.0, 0.5)
            width = np.interp(along, table, _half_width(finger, table))
            if number == changed:
                across, width = across - shift, width + widening * (width > 0)
            rim = np.clip(abs(across) / np.maximum(width, 1), 0, 1) ** 4
            bone = (0.58 + 0.24 * rim) * self.texture
            if self.growth_lines:
                bone = bone * (1 - 0.2 * sum(ramp(0.9 - abs(along - start - 7), 1.5) for start, *_ in finger.bones))
            levels = mix(levels, bone, ramp(width - abs(across), 2.5) * (width > 0))
            if self.ring is not None and self.ring[0] == number:
                band = ramp(3.5 - abs(along - self.ring[1]), 1.5) * (abs(across) < 20)
                levels = mix(levels, 0.97, band)
        return levels


def draw(streams: Streams, finding: str, side: int) -> tuple[Floats, Floats]:
    """Levels [side, side] of the healthy hand, and with the finding."""
    hand = _hand(streams.anatomy, side)
    healthy = hand.levels()
    return healthy, _FINDINGS[finding](streams.finding, hand) if finding != "normal" else healthy


def grain(rng: np.random.Generator, side: int) -> Callable[[Floats], Floats]:
    """Noise of the detector, and a camera's contrast."""
    noise = rng.uniform(0.008, 0.025) * rng.standard_normal((side, side))
    contrast = rng.uniform(0.88, 1.1)
    return lambda levels: contrast * levels + noise


def _hand(rng: np.random.Generator, side: int) -> Hand:
    size, middle = rng.uniform(0.96, 1.08), UNIT_SIDE / 2 + rng.uniform(-8, 8)
    lean, foot = rng.uniform(-0.08, 0.08), 290 + rng.uniform(-15, 15)
    fingers = []
    for number in (-1, 0, 1):
        lengths = size * np.array([95, 68, 46, 30]) * (1 - 0.07 * abs(number)) * rng.uniform(0.95, 1.05)
        starts = np.concatenate([[0], np.cumsum(lengths + JOINT)[:-1]])
        halves = size * np.array([14, 13.5, 12, 9.5]) * rng.uniform(0.95, 1.05)
        bones = tuple((float(a), float(a + b), float(c)) for a, b, c in zip(starts, lengths, halves, strict=True))
        fingers.append(Finger((foot, middle + 58 * number), lean + number * rng.uniform(0.02, 0.06), bones))
    tissue = _tissue(rng, side, fingers)
    texture = 1 + 0.05 * smooth_noise(rng, side, 48) + 0.05 * smooth_noise(rng, side, 8)
    ringed = fingers[number := int(rng.integers(3))].bones[1]
    ring = (number, ringed[0] + rng.uniform(0.3, 0.5) * (ringed[1] - ringed[0])) if rng.random() < 0.25 else None
    return Hand(tissue, tuple(fingers), texture, ring, bool(rng.random() < 0.3))


def _tissue(rng: np.random.Generator, side: int, fingers: list[Finger]) -> Floats:
    y, _ = coordinates(side)
    inside = np.broadcast_to(rng.uniform(8, 20) + y - 205, (side, side))
    for finger in fingers:
        along, across = finger.frame(side)
        end = finger.bones[-1][1] + 7 - 20
        inside = np.maximum(inside, 22 - np.hypot(across, np.clip(along - end, 0, None)))
    skin = rng.uniform(0.2, 0.3) + 0.004 * np.clip(inside, 0, 22) + 0.015 * smooth_noise(rng, side, 10)
    return mix(np.full((side, side), rng.uniform(0.04, 0.1)), skin, ramp(inside, 3))


def _half_width(finger: Finger, along: Floats) -> Floats:
    """Half width of the bone at each distance along the finger: round ends, a narrower shaft, 0 in the joints."""
    width = np.zeros_like(along)
    for start, end, half in finger.bones:
        from_middle = abs(2 * (along - start) / (end - start) - 1)
        shape = 0.78 + 0.22 * from_middle**3
        rounded = np.sqrt(np.clip(1 - (np.clip(from_middle - 0.82, 0, None) / 0.2) ** 2, 0, 1))
        width = np.where(from_middle < 1, half * shape * rounded, width)
    return width


def _place(rng: np.random.Generator, hand: Hand) -> tuple[int, float, float]:
    """Number of a finger, distance along it, and half width there: on a shaft, away from border and ring."""
    while True:
        number, bone = int(rng.integers(len(hand.fingers))), int(rng.integers(3))
        start, end, half = hand.fingers[number].bones[bone]
        along = start + rng.uniform(0.36, 0.64) * (end - start)
        point = hand.fingers[number].point(along)
        ringed = hand.ring is not None and hand.ring[0] == number and abs(hand.ring[1] - along) < 35
        if not ringed and point.min() > BORDER and point.max() < UNIT_SIDE - BORDER:
            return number, along, 0.8 * half


def _fracture(rng: np.random.Generator, hand: Hand) -> Floats:
    number, start, half = _place(rng, hand)
    along, across = hand.fingers[number].frame(len(hand.tissue))
    line = start + rng.choice([-1, 1]) * rng.uniform(0.2, 0.7) * across
    line = line + sum(rng.uniform(0.5, 1.5) * np.sin(across / rng.uniform(1, 3) + rng.uniform(0, 6)) for _ in range(2))
    fragment = bump(np.maximum(along - line, 0), 0, rng.uniform(14, 20)) * (along > line)
    levels = hand.levels(number, shift=rng.choice([-1, 1]) * rng.uniform(3, 4.5) * fragment)
    distance: Floats = abs(along - line)
    gap = ramp(rng.uniform(2, 3) - distance, 1.5) * ramp(half + 4 - abs(across), 2)
    return mix(levels, np.minimum(levels, rng.uniform(0.12, 0.22)), gap)


def _cyst(rng: np.random.Generator, hand: Hand) -> Floats:
    number, start, half = _place(rng, hand)
    along, across = hand.fingers[number].frame(len(hand.tissue))
    long = rng.uniform(9.5, 17)
    levels = hand.levels(number, widening=rng.uniform(1, 2.5) * bump(along, start, 1.2 * long))
    distance: Floats = np.hypot((along - start) / long, across / (half - 1))
    from_rim: Floats = abs(distance - 1) * half
    levels = mix(levels, 0.9, 0.7 * ramp(1.8 - from_rim, 1.5))
    return mix(levels, rng.uniform(0.26, 0.38), 0.95 * ramp((1 - distance) * half, 3))


_FINDINGS = {"fracture": _fracture, "cyst": _cyst}
