"""Training pictures of the three data sets, and the mixed, augmented batches that are drawn from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from kcompiler import Preprocessing
from models.findings import DATA_SETS, Split, picture
from models.findings.drawing import UNIT_SIDE

MOST_PATCHES = 4
LEAST_PATCH, MOST_PATCH = 16, 32
"""Sides of the patches that cover healthy places, in pixels of a picture of 224."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Pictures of one data set.

    Attributes:
        grey: uint8 [N, side, side], one of the three equal channels.
        labels: [N].
        boxes: (top, left, bottom, right) of the findings [N, 4]; zeros where there is none.
        preprocessing: what made these, and makes any other picture, the network's input.
    """

    grey: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]
    preprocessing: Preprocessing

    def inputs(self, chosen: npt.NDArray[np.int64] | slice) -> Tensor:
        """Pictures ``chosen`` as network input [n, 3, side, side]."""
        pixels = torch.from_numpy(self.grey[chosen])[:, None].float()
        mean, std = self.preprocessing.mean[0], self.preprocessing.std[0]
        normalised: Tensor = (pixels * self.preprocessing.scale - mean) / std
        return normalised.expand(-1, 3, -1, -1)


def make_pool(name: str, split: Split, count: int, side: int, preprocessing: Preprocessing | None = None) -> Pool:
    """The first ``count`` pictures; without a ``preprocessing`` they give mean and deviation themselves."""
    made = [picture(name, split, seed, side=side) for seed in tqdm(range(count), desc=f"{split} pictures of {name}")]
    grey = np.stack([one.pixels[:, :, 0] for one in made])
    return Pool(
        grey,
        np.array([one.label for one in made]),
        np.array([one.box or (0, 0, 0, 0) for one in made]),
        preprocessing or _preprocessing(grey, DATA_SETS[name].labels),
    )


def _preprocessing(grey: npt.NDArray[np.uint8], labels: tuple[str, ...]) -> Preprocessing:
    mean, std = round(float(grey.mean()) / 255, 4), round(float(grey.std()) / 255, 4)
    return Preprocessing(
        size=(grey.shape[1], grey.shape[2]),
        resize="stretch",
        scale=1 / 255,
        mean=(mean,) * 3,
        std=(std,) * 3,
        channel_order="RGB",
        labels=labels,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Images [N, 3, side, side], number of each one's data set [N], labels [N], boxes [N, 4] as shares of the side."""

    images: Tensor
    owners: Tensor
    labels: Tensor
    boxes: Tensor


def batches(pools: Sequence[Pool], size: int, sides: Sequence[int], rng: np.random.Generator) -> Iterator[Batch]:
    """One batch of ``size`` for each of ``sides``, as evenly of all pools as that goes."""
    decks = [_endless(len(pool.labels), rng) for pool in pools]
    for step, side in enumerate(sides):
        owners = [(number + step) % len(pools) for number in range(size)]
        drawn = [_augmented(pools[owner], next(decks[owner]), rng) for owner in owners]
        images, labels, boxes = zip(*drawn, strict=True)
        yield Batch(resized(torch.stack(images), side), torch.tensor(owners), torch.tensor(labels), torch.stack(boxes))


def _augmented(pool: Pool, number: int, rng: np.random.Generator) -> tuple[Tensor, int, Tensor]:
    """Image, label and box: covered here and there, and mirrored half of the time."""
    image = pool.inputs(slice(number, number + 1))[0].clone()
    _cover_healthy_places(image, pool.boxes[number], rng)
    top, left, bottom, right = (pool.boxes[number] / image.shape[-1]).tolist()
    if rng.random() < 0.5:
        image = image.flip(2)
        left, right = (1 - right, 1 - left) if right > 0 else (0, 0)
    return image, int(pool.labels[number]), torch.tensor([top, left, bottom, right])


def resized(images: Tensor, side: int) -> Tensor:
    """Images at another side, the channels last in memory as convolutions on a CPU like it."""
    if images.shape[-1] != side:
        images = functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return images.contiguous(memory_format=torch.channels_last)


def _endless(count: int, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(count).tolist()


def _cover_healthy_places(image: Tensor, box: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
    """Put up to four patches of the fill 0 on [3, side, side], none on the finding: a patch by itself is no finding."""
    top_of_finding, left_of_finding, bottom, right = box
    side = image.shape[-1]
    for _ in range(rng.integers(0, MOST_PATCHES + 1)):
        patch = round(int(rng.integers(LEAST_PATCH, MOST_PATCH + 1)) * side / UNIT_SIDE)
        top, left = rng.integers(0, side - patch + 1, size=2)
        beside_rows = top >= bottom or top + patch <= top_of_finding
        if beside_rows or left >= right or left + patch <= left_of_finding:
            image[:, top : top + patch, left : left + patch] = 0
