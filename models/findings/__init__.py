"""Three data sets of made pictures, each with at most one local finding whose place is known.

They stand in for the retina sections, chest X-rays and hand X-rays on which occlusion maps are usually measured, whose
licences forbid passing them on. A picture is a function of (data set, split, seed, label, side); the labels of one seed
share their background exactly, and at another side it is the same picture with other grain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.findings import bscan, chest, hand
from models.findings.drawing import UNIT_SIDE, Floats, Streams

Split = Literal["train", "test"]
Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, half-open."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """Names of the labels, the healthy one first; levels without and with a finding; noise over either of them."""

    labels: tuple[str, ...]
    draw: Callable[[Streams, str, int], tuple[Floats, Floats]]
    grain: Callable[[np.random.Generator, int], Callable[[Floats], Floats]]


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels uint8 [side, side, 3], three equal channels; index of the label; the box of all pixels of the finding."""

    pixels: npt.NDArray[np.uint8]
    label: int
    box: Box | None


DATA_SETS = {
    "bscan": DataSet(bscan.LABELS, bscan.draw, bscan.grain),
    "chest": DataSet(chest.LABELS, chest.draw, chest.grain),
    "hand": DataSet(hand.LABELS, hand.draw, hand.grain),
}


def picture(name: str, split: Split, seed: int, *, label: int | None = None, side: int = UNIT_SIDE) -> Picture:
    """Picture number ``seed`` of a split of data set ``name``; by default the labels take turns with the seed."""
    data_set = DATA_SETS[name]
    label = seed % len(data_set.labels) if label is None else label
    # The name's letters, not its place in the table: another data set leaves the pictures of this one as they are.
    entropy = [*name.encode(), ("train", "test").index(split), seed]
    streams = Streams(*np.random.default_rng(entropy).spawn(3))
    healthy, levels = data_set.draw(streams, data_set.labels[label], side)
    grain = data_set.grain(streams.grain, side)
    pixels = _to_bytes(grain(levels))
    box = None if label == 0 else _changed_box(pixels, _to_bytes(grain(healthy)))
    return Picture(np.repeat(pixels[:, :, None], 3, axis=2), label, box)


def _changed_box(pixels: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> Box:
    rows, columns = np.nonzero(pixels != others)
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


def _to_bytes(levels: Floats) -> npt.NDArray[np.uint8]:
    return (np.clip(levels, 0, 1) * 255).round().astype(np.uint8)
