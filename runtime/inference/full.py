"""Full inference of covered images: the reference for every number and every speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.inference.sessions import Machine, open_session
from kcompiler.runtime.inputs.images import cover
from kcompiler.runtime.inputs.positions import batches

BATCH = 8


@dataclass(frozen=True, slots=True)
class Order:
    """In which order full inference takes its sums.

    Attributes:
        optimise: with ONNX Runtime's graph optimisations, so in the blocked layout of its convolutions.
        pack: with weights of products packed.
        one_by_one: each image alone.
        one_thread: on one thread.
    """

    optimise: bool = True
    pack: bool = True
    one_by_one: bool = False
    one_thread: bool = False


USUAL = Order()
REORDERINGS = (
    Order(optimise=False),
    Order(pack=False),
    Order(optimise=False, pack=False),
    Order(one_by_one=True),
    Order(one_thread=True),
)
"""What float32 leaves undecided shows in these. On CPUs the size of a batch and the count of threads were seen to change no bit
of float32 models, but some of quantised ones; other devices choose algorithms by the batch."""


class FullInference:
    """Runs the whole model on every covered image, in batches."""

    def __init__(
        self,
        model: Path,
        output: str,
        machine: Machine,
        largest_batch: int,
        order: Order = USUAL,
        *,
        reduction: Reduction | None = None,
    ) -> None:
        """Opens ``model``, which takes ``largest_batch`` images at once, to run with its sums in ``order``.

        ``reduction`` is of its dense outputs, where the driver reduces them.
        """
        self._reduction = reduction if reduction is not None and reduction.by_driver else None
        self._largest_batch = 1 if order.one_by_one else largest_batch
        machine = replace(machine, threads=1) if order.one_thread else machine
        self._session = open_session(model, machine, optimise=order.optimise, pack=order.pack)
        self._image = self._session.get_inputs()[0].name
        self._output = output

    def run(self, images: FloatArray, *outputs: str) -> FloatArray:
        """``outputs`` (none named: the explained one) of images [N, C, H, W], side by side: float32 [N, K a name].

        Where outputs are reduced over the cells of each class, those are each image's own.
        """
        found = self.raw(images, *outputs)
        if self._reduction is None:
            return found
        own = found[:, : self._reduction.numbers] if not outputs or outputs[0] == self._output else self.raw(images)
        masks = map(self._reduction.mask, own)
        return np.concatenate([self._reduction.apply(one[None], mask) for one, mask in zip(found, masks, strict=True)])

    def mask(self, image: FloatArray) -> BoolArray | None:
        """The cells of each class by the uncovered ``image``, float32 [1, C, H, W]; None where the driver reduces nothing."""
        return self._reduction.mask(self.raw(image)[0]) if self._reduction is not None else None

    def raw(self, images: FloatArray, *outputs: str) -> FloatArray:
        """The same as :meth:`run`, not reduced: what the model puts out."""
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
        """Outputs with the patch at each position; cells of each class, where it is reduced over those, are the image's own.

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
        mask = self.mask(image)
        found = []
        for part in batches(len(positions), batch):
            raw = self.raw(cover(image, fill, positions[part], patch), *outputs)
            found.append(self._reduction.apply(raw, mask) if self._reduction is not None and mask is not None else raw)
        return np.concatenate(found)


def side_by_side(outputs: Sequence[npt.ArrayLike], count: int) -> FloatArray:
    """Outputs of ``count`` images as rows of numbers, those of each output after those of the one before: float32 [count, K]."""
    rows = [np.asarray(one, dtype=np.float32).reshape(count, -1) for one in outputs]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)
