"""A compiled model on ONNX Runtime: an engine for each variant, and full inference of the source model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.manifest import FULL, Manifest, read_manifest
from kcompiler.runtime.bundle.targets import Targets
from kcompiler.runtime.bundle.unaltered import Unaltered
from kcompiler.runtime.bundle.variant import DeviceName
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inference.cuda import CudaOptions
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inference.full import USUAL, FullInference, Order
from kcompiler.runtime.inference.sessions import Machine
from kcompiler.runtime.inputs.images import check_image

MEMORY = 2 << 30


class CompiledModel:
    """The models of a bundle. Sessions open on first use."""

    def __init__(
        self,
        folder: Path,
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        memory: int = MEMORY,
        owner: object = None,
        graphs: bool = False,
        compiled_for: DeviceName | None = None,
        patch: tuple[int, int] | None = None,
        cuda: CudaOptions | None = None,
    ) -> None:
        """Reads the manifest and verifies the bundle's checksums.

        Args:
            folder: a compiled bundle.
            providers: see :class:`Machine`.
            threads: see :class:`Machine`.
            memory: bytes that all concurrent batches of positions together may take, beside cached activations and weights (if
                the weights are small, each concurrent batch has a copy).
            graphs: run the compiled graphs even where nothing in them is incremental, as other stacks do: to verify them.
            compiled_for: device whose variants are run; None is that of the providers. Variants for other devices run on the CPU,
                too, more slowly: to verify them.
            patch: (height, width), of those that the bundle is compiled for; None is the first.
            cuda: how sessions use CUDA, where they run there.
            owner: an object that removes the folder when it is garbage-collected; referenced as long as this object lives.

        Raises:
            BundleError: the bundle is incomplete, altered, or of another format version.
            ProviderError: ONNX Runtime or a provider is absent.
            UsageError: the memory does not suffice for one position, or the bundle is not compiled for the patch.
        """
        self.folder = folder = folder.absolute()  # the working directory may change
        self._owner = owner
        self._graphs = graphs
        self._settings: dict[str, Any] = {
            "providers": providers, "threads": threads, "memory": memory, "graphs": graphs, "compiled_for": compiled_for,
            "patch": patch, "cuda": cuda,
        }  # fmt: skip
        manifest = read_manifest(folder)
        self.patches = manifest.patches
        """The patches that the bundle is compiled for; the manifest is that of one."""
        self.manifest: Manifest = manifest.for_patch(patch)
        self._files = Unaltered(folder, self.manifest.files)
        if isinstance(providers, str):
            raise UsageError(f"providers is {providers!r}, expected a list of names")
        self.machine = Machine(tuple(providers) if providers is not None else None, threads, cuda or CudaOptions())
        self.variants = self.manifest.variants_on(compiled_for or self.machine.device)
        """Those that run, the exact one first."""
        if self.machine.device != "cpu" and compiled_for is None and self.variants[0].device == "cpu":
            warnings.warn(
                f"{folder}: compiled for the CPU alone, so it will be slow on {self.machine.device}; compile the model with "
                f"--device {self.machine.device}",
                stacklevel=3,
            )
        self._memory = memory
        self._engines: dict[str, Engine] | None = self._make_engines()
        self._process = os.getpid()

    @property
    def engines(self) -> dict[str, Engine]:
        """Engines by variant name; the exact variant's first. A forked process makes its own.

        Raises:
            UsageError: the model is closed, or a forked process cannot use the device.
        """
        if self._process != os.getpid():
            if self.machine.device != "cpu":
                raise UsageError(
                    f"{self.folder}: opened on {self.machine.device} before a fork; load it in the new process instead"
                )
            if self._engines is not None:
                self._engines = self._make_engines()
            self._process = os.getpid()
        engines = self._engines
        if engines is None:
            raise UsageError(f"{self.folder}: is closed; load it again")
        return engines

    def close(self) -> None:
        """Gives up sessions, threads and memory; whatever uses it afterwards raises. Closing twice is no error."""
        self._engines, self._owner = None, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by the path of its bundle and its settings: whoever unpickles it verifies and opens the bundle anew."""
        return _reopened, (type(self), self.folder, self._settings)

    def _make_engines(self) -> dict[str, Engine]:
        full = cache(partial(_full_inference, self._files, self.manifest))  # one session per machine, opened on first use
        return {
            variant.name: Engine(self._files, self.manifest, variant, self.machine, self._memory, full, graphs=self._graphs)
            for variant in self.variants
        }

    def for_patch(self, patch: tuple[int, int]) -> Self:
        """The same bundle for another of its patches, (height, width), on the same machine; it opens on first use.

        Raises:
            UsageError: the bundle is not compiled for the patch.
        """
        return type(self)(self.folder, **{**self._settings, "patch": patch}, owner=self._owner)

    @property
    def exact(self) -> Engine:
        """The engine of the exact variant."""
        return next(iter(self.engines.values()))

    def open(self) -> Self:
        """Opens the sessions of the exact engine now."""
        self.exact.open()
        return self

    def check_unaltered(self) -> None:
        """Checks that the files are still those that were verified; sessions keep them mapped.

        Raises:
            BundleError: one was replaced or written since.
        """
        self._files.check()

    @property
    def targets(self) -> Targets:
        """The classes that can be explained."""
        return Targets(self.manifest)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Axes of the explained output after the batch: (classes,), or those of a dense output: targets are its flat indices."""
        shape = tuple(self.exact.sessions.incremental.get_outputs()[0].shape[1:])
        known = all(isinstance(size, int) for size in shape) and prod(shape) == self.manifest.classes
        return shape if known and not self.manifest.two_classes else (self.targets.count,)

    def label(self, target: int) -> str:
        """The name of a class; its index as text, along each axis of a dense output, if it has none."""
        labels = self.targets.labels
        return labels[target] if labels else ",".join(str(index) for index in np.unravel_index(target, self.output_shape))

    def check_image(self, image: npt.ArrayLike) -> FloatArray:
        """Validates the caller's image and returns it as float32 [1, C, H, W]; see :func:`images.check_image`."""
        return check_image(image, self.manifest.shape, self.manifest.layout, element=self.manifest.image_element)

    def full_inference(self, *, order: Order = USUAL, machine: Machine | None = None) -> FullInference:
        """Full inference of the source model, on this model's machine or on ``machine``."""
        return _full_inference(self._files, self.manifest, machine or self.machine, order)


def _reopened(kind: type[CompiledModel], folder: Path, settings: Mapping[str, Any]) -> CompiledModel:
    return kind(folder, **settings).open()


def _full_inference(files: Unaltered, manifest: Manifest, machine: Machine, order: Order = USUAL) -> FullInference:
    model, batch = files.folder / FULL, manifest.largest_batch
    full = FullInference(model, manifest.output, machine, batch, order, reduction=manifest.reduction)
    files.check()
    return full
