"""A compiled model on ONNX Runtime: an engine for each variant, and full inference of the source model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Self

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
        self.folder = folder
        self._owner, self._graphs, self._compiled_for = owner, graphs, compiled_for
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
        self.engines = self._make_engines()
        """Engines by variant name; the exact variant's first."""

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
        machine = self.machine
        return type(self)(
            self.folder, providers=machine.providers, threads=machine.threads, memory=self._memory, owner=self._owner,
            graphs=self._graphs, compiled_for=self._compiled_for, patch=patch, cuda=machine.cuda,
        )  # fmt: skip

    @property
    def exact(self) -> Engine:
        """The engine of the exact variant."""
        return next(iter(self.engines.values()))

    def open(self) -> Self:
        """Opens the sessions of the exact engine now."""
        self.exact.open()
        return self

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


def _full_inference(files: Unaltered, manifest: Manifest, machine: Machine, order: Order = USUAL) -> FullInference:
    model, batch = files.folder / FULL, manifest.largest_batch
    full = FullInference(model, manifest.output, machine, batch, order, reduction=manifest.reduction)
    files.check()
    return full
