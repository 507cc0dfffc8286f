"""Full inference of covered images: the reference for every number and every speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.images import FloatArray, cover
from kcompiler.runtime.positions import IntArray, batches
from kcompiler.runtime.sessions import Machine, open_session

BATCH = 8


@dataclass(frozen=True, slots=True)
class Order:
    """In which order full inference takes its sums.

    Attributes:
        optimise: with ONNX Runtime's graph optimisations, so in the blocked layout of its convolutions.
        pack: with weights of products packed.
        one_by_one: each image alone.
    """

    optimise: bool = True
    pack: bool = True
    one_by_one: bool = False


USUAL = Order()
REORDERINGS = (
    Order(optimise=False),
    Order(pack=False),
    Order(optimise=False, pack=False),
    Order(one_by_one=True),
)
"""What float32 leaves undecided shows in these. On CPUs the size of a batch and the count of threads were seen to change no bit;
other devices choose algorithms by the batch."""


class FullInference:
    """Runs the whole model on every covered image, in batches."""

    def __init__(self, model: Path, output: str, machine: Machine, largest_batch: int, order: Order = USUAL) -> None:
        """Opens ``model``, which takes ``largest_batch`` images at once, to run with its sums in ``order``."""
        self._largest_batch = 1 if order.one_by_one else largest_batch
        self._session = open_session(model, machine, optimise=order.optimise, pack=order.pack)
        self._image = self._session.get_inputs()[0].name
        self._output = output

    def run(self, images: FloatArray, *outputs: str) -> FloatArray:
        """``outputs`` (none named: the explained one) of images [N, C, H, W], side by side: float32 [N, K a name]."""
        parts = []
        for part in batches(len(images), self._largest_batch):
            found = self._session.run(list(outputs or (self._output,)), {self._image: images[part]})
            parts.append(side_by_side(found, part.stop - part.start))
        return np.concatenate(parts)

    def outputs(
        self,
        image: FloatArray,
        fill: FloatArray,
        positions: IntArray,
        patch: tuple[int, int],
        *outputs: str,
        batch: int = BATCH,
    ) -> FloatArray:
        """Outputs with the patch at each position.

        Args:
            image: float32 [1, C, H, W].
            fill: float32 [C, H, W].
            positions: int64 [N, 2], N >= 1.
            patch: (height, width).
            outputs: names; none named is the explained one.
            batch: images a run.

        Returns:
            float32 [N, K a name], side by side.
        """
        parts = batches(len(positions), batch)
        return np.concatenate([self.run(cover(image, fill, positions[part], patch), *outputs) for part in parts])


def side_by_side(outputs: Sequence[npt.ArrayLike], count: int) -> FloatArray:
    """Outputs of ``count`` images as rows of numbers, those of each output after those of the one before: float32 [count, K]."""
    return np.concatenate([np.asarray(one, dtype=np.float32).reshape(count, -1) for one in outputs], axis=1)
