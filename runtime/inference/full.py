"""Full inference of covered images: the reference for all outputs and all speeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.bundle.variant import DeviceName
from kcompiler.runtime.errors import BundleError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inference.sessions import Machine, onnxruntime, open_session, running
from kcompiler.runtime.inputs.images import cover
from kcompiler.runtime.inputs.positions import batches

BATCH = 8
NUMBERS_AT_ONCE = 1 << 24
"""Numbers of the images of a run: of larger images, fewer than a batch run at once."""


@dataclass(frozen=True, slots=True)
class Order:
    """Session settings that determine the order in which full inference adds up products.

    Attributes:
        optimise: with ONNX Runtime's graph optimisations, which use a blocked layout for convolutions.
        pack: with the weights of matrix products packed.
        one_by_one: with a batch size of 1.
        one_thread: on a single thread.
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
"""Orders whose outputs differ by the rounding of full inference. On CPUs, batch size and thread count changed no bit of float32
models in our measurements, but did for some quantised models; other devices choose algorithms by batch size."""


class FullInference:
    """Runs the source model on covered images, in batches."""

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
        """Opens a session on ``model``.

        Args:
            model: the bundle's copy of the source model.
            output: name of the explained output.
            machine: providers and threads.
            largest_batch: largest batch size that the model takes.
            order: order of its sums.
            reduction: how dense outputs are reduced; applied only if the driver reduces them.
        """
        self._reduction = reduction if reduction is not None and reduction.by_driver else None
        self._largest_batch = 1 if order.one_by_one else largest_batch
        self._machine = machine = replace(machine, threads=1) if order.one_thread else machine
        self._session = open_session(model, machine, optimise=order.optimise, pack=order.pack)
        self._image = self._session.get_inputs()[0].name
        self._output = output

    def run(self, images: FloatArray, *outputs: str) -> FloatArray:
        """Outputs of images [N, C, H, W]. Reduction over the cells of each class takes the cells of each image itself.

        Returns:
            float32 [N, K per name], ``outputs`` side by side; without names, the explained output.
        """
        raw = self.raw(images, *outputs)
        if self._reduction is None:
            return raw
        dense = raw[:, : self._reduction.numbers] if not outputs or outputs[0] == self._output else self.raw(images)
        masks = map(self._reduction.mask, dense)
        return np.concatenate([self._reduction.apply(row[None], mask) for row, mask in zip(raw, masks, strict=True)])

    def mask(self, image: FloatArray) -> BoolArray | None:
        """Bool [K, cells]: the cells of each class in ``image``, float32 [1, C, H, W]; None unless the driver reduces outputs."""
        return self._reduction.mask(self.raw(image)[0]) if self._reduction is not None else None

    def raw(self, images: FloatArray, *outputs: str) -> FloatArray:
        """:meth:`run` without the reduction."""
        rows = []
        for part in batches(len(images), min(self._largest_batch, max(2, at_once(images[0].size)))):
            with running():
                values = self._session.run(list(outputs or (self._output,)), {self._image: images[part]})
            rows.append(side_by_side(values, part.stop - part.start))
        return np.concatenate(rows)

    @property
    def device(self) -> DeviceName:
        """The device that runs it."""
        return self._machine.device

    def ready(self, images: FloatArray) -> Callable[[], object]:
        """A function that runs images [N, C, H, W], N at most the largest batch, which lie on the device: to be timed."""
        binding = self._session.io_binding()
        device = self._machine.device
        binding.bind_ortvalue_input(self._image, onnxruntime().OrtValue.ortvalue_from_numpy(images, device, 0))
        binding.bind_output(self._output, "cpu")
        return lambda: self._session.run_with_iobinding(binding)

    def outputs(
        self,
        image: FloatArray,
        fill: FloatArray,
        positions: IntArray,
        patch: tuple[int, int],
        *outputs: str,
        batch: int = BATCH,
        told: Callable[[int], None] = lambda _: None,
    ) -> FloatArray:
        """Outputs with the patch at each position. Reduction over the cells of each class takes those of the uncovered image.

        Args:
            image: float32 [1, C, H, W].
            fill: float32 [C, H, W].
            positions: int64 [N, 2], N >= 1.
            patch: (height, width).
            outputs: names; without any, the explained output.
            batch: images per run.
            told: is told how many positions each run took.

        Returns:
            float32 [N, K per name], side by side.
        """
        mask = self.mask(image)
        rows = []
        for part in batches(len(positions), min(batch, at_once(image.size))):
            raw = self.raw(cover(image, fill, positions[part], patch), *outputs)
            rows.append(self._reduction.apply(raw, mask) if self._reduction is not None and mask is not None else raw)
            told(len(raw))
        return np.concatenate(rows)


def at_once(numbers: int) -> int:
    """Images of so many numbers each that run at once."""
    return max(1, NUMBERS_AT_ONCE // numbers)


def side_by_side(outputs: Sequence[npt.ArrayLike], count: int) -> FloatArray:
    """Flattens the outputs of ``count`` images and concatenates them: float32 [count, K].

    Raises:
        BundleError: they are no numbers of as many images.
    """
    with foreign(lambda why: BundleError(f"a model puts out what are no numbers of {count} images: {why}")):
        flat = [np.asarray(output, dtype=np.float32).reshape(count, -1) for output in outputs]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
