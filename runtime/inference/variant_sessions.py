"""The sessions of one compiled variant: opened on first use; one per worker where the weights are small."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kcompiler.runtime.bundle.stored import WEIGHTS_KEY, stored_weights
from kcompiler.runtime.bundle.unaltered import Unaltered
from kcompiler.runtime.bundle.variant import DeviceName, Variant
from kcompiler.runtime.inference import cuda
from kcompiler.runtime.inference.sessions import Machine, onnxruntime, open_session

if TYPE_CHECKING:
    import onnxruntime as ort

FEW_BYTES = 128 << 20
"""Up to this size of the weights each worker has its own session, with its own copy of the weights packed for products."""


class VariantSessions:
    """The baseline model's session, and the incremental model's sessions: for concurrent batches and for a single batch."""

    def __init__(self, files: Unaltered, variant: Variant, machine: Machine, share: Machine, workers: int) -> None:
        """Opens no session yet.

        Args:
            files: files of the bundle; opening a session raises once they have changed.
            variant: a variant of the bundle.
            machine: for a single batch.
            share: for concurrent batches, as :meth:`Machine.divided` returns it beside ``workers``.
            workers: threads that run batches concurrently.
        """
        self._files, self._variant, self._machine, self._share, self._workers = files, variant, machine, share, workers
        self._local, self._opening, self._first_taken = threading.local(), threading.Lock(), False
        self._small_weights = variant.weight_bytes <= FEW_BYTES

    @cached_property
    def baseline(self) -> ort.InferenceSession:
        return self._open(self._variant.baseline, self._machine)

    @cached_property
    def index(self) -> ort.InferenceSession:
        """The session of the model that computes indices from positions, on the CPU."""
        assert self._variant.index is not None, "only asked for where there is one"
        return self._open(self._variant.index, Machine(("cpu",), self._machine.threads))

    @cached_property
    def incremental(self) -> ort.InferenceSession:
        """The incremental model's session of the first worker, or of all workers."""
        return self.open_incremental()

    @cached_property
    def alone(self) -> ort.InferenceSession:
        """The incremental model's session with all threads, for a single batch."""
        return self.open_incremental(alone=True) if self._workers > 1 else self.incremental

    def of_worker(self) -> ort.InferenceSession:
        """The incremental model's session of the calling thread, opened on its first call; shared where the weights are large.

        Threads that share a session also share its allocator: each gets memory that another thread freed, which lies in another
        core's cache, and more of it the longer they run. DenseNet121 then takes 17 ms a position, but 13 with a session per
        thread; GoogLeNet 4.7 and 3.7. ResNet50, whose batches exceed the caches, gains nothing.
        """
        if not self._small_weights:
            return self.incremental
        if not hasattr(self._local, "session"):
            with self._opening:
                first, self._first_taken = not self._first_taken, True
            # The baseline pass has opened ``incremental`` already, to know the device of the cached activations.
            self._local.session = self.incremental if first else self.open_incremental()
        session: ort.InferenceSession = self._local.session
        return session

    def open_incremental(self, profile: Path | None = None, *, alone: bool = False) -> ort.InferenceSession:
        """Opens a session on the incremental model.

        Args:
            profile: prefix of the file that ONNX Runtime writes its profile to; None does not profile.
            alone: for a single batch, on all threads; otherwise for concurrent batches.
        """
        share = self._share.shared_out(self._workers) if self._small_weights else self._share
        machine = self._machine if alone else share
        return self._open(self._variant.incremental, machine, profile=profile)

    def of_class(self, number: int) -> ort.InferenceSession | None:
        """The incremental model's session for large batches of a class of extents; None if one session runs all classes."""
        return None

    def _open(
        self,
        name: str,
        machine: Machine,
        *,
        profile: Path | None = None,
        shared: Mapping[str, ort.OrtValue] | None = None,
    ) -> ort.InferenceSession:
        session = open_session(self._files.folder / name, machine, profile=profile, shared=shared)
        self._files.check()
        return session

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of the incremental model's inputs."""
        return frozenset(value.name for value in self.incremental.get_inputs())

    @property
    def device(self) -> DeviceName:
        """The device that holds the cached activations."""
        return self._machine.device


class ClassSessions(VariantSessions):
    """Sessions on CUDA: one of the incremental model for each class of extents, and one for few positions, of whatever class.
    They share weights and activations' memory.

    cuDNN's plan of a convolution holds for one shape, and ONNX Runtime keeps only the last: a session whose shapes alternate
    would make all plans anew in every batch.
    """

    def __init__(self, files: Unaltered, variant: Variant, machine: Machine) -> None:
        """Opens no session yet; see :class:`VariantSessions`."""
        super().__init__(files, variant, machine, machine, 1)
        self._of_class: dict[int, ort.InferenceSession] = {}

    @cached_property
    def _shared(self) -> dict[str, ort.OrtValue]:
        """The weights on the device, by name."""
        text = self.index.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY, "")
        weights = stored_weights(self._files.folder, text)
        return {name: cuda.shareable(onnxruntime(), np.ascontiguousarray(values)) for name, values in weights}

    def open_incremental(self, profile: Path | None = None, *, alone: bool = False) -> ort.InferenceSession:
        return self._open(self._variant.incremental, self._machine, profile=profile, shared=self._shared)

    def of_worker(self) -> ort.InferenceSession:
        return self.incremental

    def of_class(self, number: int) -> ort.InferenceSession:
        """The class's session, opened on first use; :attr:`incremental` is that for few positions."""
        with self._opening:
            if number not in self._of_class:
                self._of_class[number] = self.open_incremental()
            return self._of_class[number]


def sessions_of(files: Unaltered, variant: Variant, machine: Machine, share: Machine, workers: int) -> VariantSessions:
    """The sessions of a variant on a machine; see :class:`VariantSessions`."""
    if machine.device == "cuda" and variant.index is not None:
        return ClassSessions(files, variant, machine)
    return VariantSessions(files, variant, machine, share, workers)
