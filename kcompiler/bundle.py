"""A compiled model, in a folder of its own until it is saved."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

from kcompiler.runtime.bundle.files import replace_folder
from kcompiler.runtime.bundle.manifest import Manifest, is_own_file
from kcompiler.runtime.bundle.report import Report


class Bundle:
    """A compiled, verified model. ``kcompiler.load`` takes it as it is, or the path it was saved to."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Takes over the temporary ``folder``: it is removed with the last reference to this bundle."""
        self.folder = folder
        self.manifest = manifest
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @property
    def report(self) -> Report:
        """Per node what the compiler did, and the redundancy ratios."""
        return self.manifest.report

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Copies the bundle to the folder ``path``, whole or not at all.

        Raises:
            UsageError: it exists, and ``force`` is not given; or it cannot be made.
        """
        replace_folder(self.folder, Path(path), is_own_file, force=force)
        return Path(path)
