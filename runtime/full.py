"""Full inference of covered images: the reference for every number and every speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kcompiler.runtime.images import FloatArray, cover
from kcompiler.runtime.positions import IntArray, batches
from kcompiler.runtime.sessions import Machine, open_session

BATCH = 8


class FullInference:
    """Runs the whole model on every covered image, in batches."""

    def __init__(self, model: Path, output: str, machine: Machine, largest_batch: int, *, optimise: bool = True) -> None:
        """Opens ``model``; ``optimise=False`` turns ONNX Runtime's graph optimisations off."""
        self._largest_batch = largest_batch
        self._session = open_session(model, machine, optimise=optimise)
        self._image = self._session.get_inputs()[0].name
        self._output = output

    def run(self, images: FloatArray, output: str | None = None) -> FloatArray:
        """``output`` (None: the explained one) of images [N, C, H, W]: float32 [N, K]."""
        parts = []
        for part in batches(len(images), self._largest_batch):
            (outputs,) = self._session.run([output or self._output], {self._image: images[part]})
            parts.append(np.asarray(outputs, dtype=np.float32).reshape(part.stop - part.start, -1))
        return np.concatenate(parts)

    def outputs(
        self, image: FloatArray, fill: FloatArray, positions: IntArray, patch: tuple[int, int], batch: int = BATCH
    ) -> FloatArray:
        """Outputs with the patch at each position.

        Args:
            image: float32 [1, C, H, W].
            fill: float32 [C, H, W].
            positions: int64 [N, 2], N >= 1.
            patch: (height, width).
            batch: images a run.

        Returns:
            float32 [N, K].
        """
        return np.concatenate([self.run(cover(image, fill, positions[part], patch)) for part in batches(len(positions), batch)])
