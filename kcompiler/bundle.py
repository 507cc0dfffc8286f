"""A compiled model, in a temporary folder until it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kcompiler
from kcompiler.runtime.bundle.files import replace_folder
from kcompiler.runtime.bundle.manifest import Manifest, is_own_file, read_manifest
from kcompiler.runtime.bundle.report import Report
from kcompiler.runtime.deployed import Card
from kcompiler.runtime.scratch import Scratch, inside


class Bundle:
    """A compiled, verified model. ``kcompiler.load`` takes it, or the path that it was saved to."""

    def __init__(self, built: Scratch, manifest: Manifest) -> None:
        """Takes ownership of the temporary folder ``built``, which is removed with the last reference to this bundle."""
        self._built = built
        self.folder = inside(built)
        self.manifest = manifest

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by its folder, which goes with this bundle: save one that is to live longer."""
        return _borrowed, (self.folder,)

    @property
    def report(self) -> Report:
        """How each node was compiled, and the redundancy ratios."""
        return self.manifest.report

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Copies the bundle to the folder ``path``, which appears whole, by a rename, or not at all.

        Raises:
            UsageError: ``path`` exists without ``force``, is not a bundle, or cannot be written.
        """
        replace_folder(self.folder, Path(path), is_own_file, force=force)
        return Path(path)

    def export(self, out: str | Path, **settings: Any) -> Card:
        """Writes the bundle as one ONNX model, image in, heat map out: :func:`kcompiler.export` with its ``settings``."""
        return kcompiler.export(self, out, **settings)


def _borrowed(folder: Path) -> Bundle:
    """The bundle in a folder that another process removes.

    Raises:
        BundleError: it has been removed.
    """
    bundle = Bundle.__new__(Bundle)
    bundle.folder, bundle.manifest = folder, read_manifest(folder)
    return bundle
