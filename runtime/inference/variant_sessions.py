"""The sessions of one compiled variant: each opened when first needed, and one for each worker where weights are few."""

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
"""Weights of at most this size are few: each worker has a session, and its own copy of them, packed for products."""


class VariantSessions:
    """The baseline model's session, and those of the incremental model: for batches side by side, and for one alone."""

    def __init__(self, files: Unaltered, variant: Variant, machine: Machine, share: Machine, workers: int) -> None:
        """Of ``variant`` of a bundle.

        Args:
            files: of the bundle; no session opens once they are others.
            machine: for a batch that is the only one.
            share: for batches side by side, as :meth:`Machine.divided` returns it beside ``workers``.
            workers: threads that run batches side by side.
        """
        self._files, self._variant, self._machine, self._share, self._workers = files, variant, machine, share, workers
        self._of_worker, self._opening, self._handed_out = threading.local(), threading.Lock(), False
        self._few_weights = variant.weight_bytes <= FEW_BYTES

    @cached_property
    def baseline(self) -> ort.InferenceSession:
        return self._open(self._variant.baseline, self._machine)

    @cached_property
    def incremental(self) -> ort.InferenceSession:
        """That of the first worker, or of all."""
        return self.open_incremental()

    @cached_property
    def alone(self) -> ort.InferenceSession:
        """The incremental model's with all threads, for a batch that is the only one."""
        return self.open_incremental(alone=True) if self._workers > 1 else self.incremental

    def of_worker(self) -> ort.InferenceSession:
        """The incremental model's of the thread that asks, opened when it first does; one for all where there are many weights.

        Where threads run one session, each takes memory that another has given back, out of the cache of another core, the more
        so the longer they run: DenseNet121 takes 17 ms a position then, 13 before and with a session each, GoogLeNet 4.7 and 3.7.
        ResNet50, whose batches leave the caches, gains nothing.
        """
        if not self._few_weights:
            return self.incremental
        if not hasattr(self._of_worker, "session"):
            with self._opening:
                first, self._handed_out = not self._handed_out, True
            # The first is the session that the baseline pass has opened already, to know where its activations go.
            self._of_worker.session = self.incremental if first else self.open_incremental()
        session: ort.InferenceSession = self._of_worker.session
        return session

    def open_incremental(self, profile: Path | None = None, *, alone: bool = False) -> ort.InferenceSession:
        """A session on the incremental model, which profiles into files that begin with ``profile``.

        It is for batches side by side, or for one ``alone`` on all threads.
        """
        share = self._share.shared_out(self._workers) if self._few_weights else self._share
        machine = self._machine if alone else share
        return self._open(self._variant.incremental, machine, profile=profile)

    def _open(self, name: str, machine: Machine, *, profile: Path | None = None) -> ort.InferenceSession:
        session = open_session(self._files.folder / name, machine, profile=profile)
        self._files.check()
        return session

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Of the incremental model."""
        return frozenset(value.name for value in self.incremental.get_inputs())

    @property
    def device(self) -> str:
        """Where activations are kept: "cuda" or "cpu"."""
        return device_of(self.incremental)
