"""The sessions of one compiled variant: opened on first use; one per worker where the weights are small."""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kcompiler.runtime.bundle.manifest import Variant
from kcompiler.runtime.bundle.unaltered import Unaltered
from kcompiler.runtime.inference.sessions import Machine, device_of, open_session

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

    def _open(self, name: str, machine: Machine, *, profile: Path | None = None) -> ort.InferenceSession:
        session = open_session(self._files.folder / name, machine, profile=profile)
        self._files.check()
        return session

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of the incremental model's inputs."""
        return frozenset(value.name for value in self.incremental.get_inputs())

    @property
    def device(self) -> str:
        """The device that holds the cached activations: "cuda" or "cpu"."""
        return device_of(self.incremental)
