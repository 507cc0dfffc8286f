"""Pictures for the demo classifier: parts of a real fundus photograph, healthy or with one lesion drawn in.

The photograph is scikit-image's ``retina``. Its upper half makes the training pictures and its lower half the test
pictures; each half is completed to a round eye by its own mirror image, so no pixel of one split occurs in the other.
Every picture is a function of (split, seed, label), and the three labels of one seed share their background exactly.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from skimage import data
from skimage.transform import downscale_local_mean, warp

from models.demo_lesions import Floats, Lesion, exudate, haemorrhage

Split = Literal["train", "test"]
Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, half-open."""

LABELS = ("healthy", "haemorrhage", "exudate")
SIDE = 224
"""Rows and columns of a picture."""

DARKEST_RETINA = 0.2
"""Red level, from 0 to 1, that separates the retina from the black around it."""

LEAST_CONTRAST = 0.12
"""Mean change of a pixel under a lesion, from 0 to 1; a lesion on top of something like it cannot be seen."""

_DRAW = {"haemorrhage": haemorrhage, "exudate": exudate}


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels uint8 [224, 224, 3] (RGB), index of the label, and the box of all pixels that the lesion changed."""

    pixels: npt.NDArray[np.uint8]
    label: int
    box: Box | None


def picture(seed: int, split: Split, label: int | None = None) -> Picture:
    """Picture number ``seed`` of ``split``; by default the labels take turns with the seed."""
    label = seed % len(LABELS) if label is None else label
    background_rng, lesion_rng = np.random.default_rng([("train", "test").index(split), seed]).spawn(2)
    background = _background(background_rng, split)
    if label == 0:
        return Picture(_to_bytes(background), label, None)
    pixels = _to_bytes(_with_lesion(lesion_rng, background, LABELS[label]))
    return Picture(pixels, label, _changed_box(pixels, _to_bytes(background)))


@cache
def _eye(split: Split) -> Floats:
    """Half of the photograph, completed by its mirror image: [705 or 703, 705, 3] from 0 to 1."""
    photograph = data.retina()[:1410, :1410] / 255.0  # type: ignore[no-untyped-call]
    photograph = downscale_local_mean(photograph, (2, 2, 1))  # type: ignore[no-untyped-call]
    middle = len(photograph) // 2
    half = photograph[: middle + 1] if split == "train" else photograph[:middle:-1]
    eye: Floats = np.concatenate([half, half[-2::-1]])
    return eye


def _background(rng: np.random.Generator, split: Split) -> Floats:
    """Healthy picture [224, 224, 3] from 0 to 1: a part of the eye as some camera, and some patient, would give it."""
    part = _part_of_eye(rng, _eye(split))
    for _ in range(rng.integers(0, 4)):
        part = _with_distractor(rng, part)
    tint = rng.uniform(0.85, 1.12) * rng.uniform([0.93, 0.85, 0.85], [1.05, 1.15, 1.15])
    shaded = part ** rng.uniform(0.85, 1.2) * tint * _uneven_light(rng)
    return np.clip(shaded + rng.normal(scale=rng.uniform(0.003, 0.015), size=shaded.shape), 0, 1)


def _part_of_eye(rng: np.random.Generator, eye: Floats) -> Floats:
    """Square part of the eye, turned, mirrored and scaled to the picture's side; at least 60% of it is retina."""
    while True:
        scale = rng.uniform(0.4, 0.85) * len(eye) / SIDE
        angle = rng.uniform(0, 2 * np.pi)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn[:, 0] *= rng.choice([-1.0, 1.0])  # mirrored, or not
        centre = (len(eye) - 1) / 2 + rng.uniform(-0.3, 0.3, size=2) * len(eye)
        to_eye = np.eye(3)
        to_eye[:2, :2] = turn
        to_eye[:2, 2] = centre - turn @ np.full(2, (SIDE - 1) / 2)
        part: Floats = warp(eye, to_eye, output_shape=(SIDE, SIDE), order=1)  # type: ignore[no-untyped-call]
        if (part[:, :, 0] > DARKEST_RETINA).mean() > 0.6:
            return part


def _with_distractor(rng: np.random.Generator, part: Floats) -> Floats:
    """Harmless findings, so that neither every dark nor every bright spot is a lesion: reflex, dust or pigment."""
    colour, radius, opacity = {
        "reflex": (np.array([1.0, 0.9, 0.88]), rng.uniform(8, 20), rng.uniform(0.1, 0.3)),
        "dust": (np.array([0.25, 0.22, 0.22]), rng.uniform(1, 2.2), rng.uniform(0.4, 0.8)),
        "pigment": (np.array([0.45, 0.32, 0.25]), rng.uniform(5, 12), rng.uniform(0.2, 0.45)),
    }[rng.choice(["reflex", "dust", "pigment"])]
    retina = part[:, :, :1] > DARKEST_RETINA
    spot = opacity * retina * _soft_spot(rng.uniform(0, SIDE, size=2), radius)[:, :, None]
    mixed: Floats = part * (1 - spot) + colour * spot
    return mixed


def _soft_spot(centre: Floats, radius: float) -> Floats:
    """Gaussian bump [224, 224] of peak 1."""
    y, x = np.ogrid[:SIDE, :SIDE]
    spot: Floats = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * radius**2))
    return spot


def _uneven_light(rng: np.random.Generator) -> Floats:
    """Factor [224, 224, 1] of a light that falls from some side, up to 15% at the picture's border."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15)
    light: Floats = 1 + strength * (y * np.sin(direction) + x * np.cos(direction))
    return light[:, :, None]


def _with_lesion(rng: np.random.Generator, background: Floats, name: str) -> Floats:
    """``background`` with one lesion at a random place, all of it on retina and visible against what was there."""
    retina = background[:, :, 0] > DARKEST_RETINA
    while True:
        lesion: Lesion = _DRAW[name](rng)
        height, width = lesion.opacity.shape
        top, left = rng.integers(0, SIDE - height + 1), rng.integers(0, SIDE - width + 1)
        place = np.s_[top : top + height, left : left + width]
        if not retina[place].all():
            continue
        covered = lesion.over(background[place])
        contrast = abs(covered - background[place]).mean(axis=2)[lesion.opacity > 0.5]
        if contrast.size and contrast.mean() > LEAST_CONTRAST:
            result = background.copy()
            result[place] = covered
            return result


def _changed_box(pixels: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> Box:
    rows, columns = np.nonzero((pixels != others).any(axis=2))
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


def _to_bytes(levels: Floats) -> npt.NDArray[np.uint8]:
    return (np.clip(levels, 0, 1) * 255).round().astype(np.uint8)
