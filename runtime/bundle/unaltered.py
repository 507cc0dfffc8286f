"""Detects changes to a bundle's files after their checksums were verified: sessions open on the files later, some much later."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kcompiler.runtime.errors import BundleError


class Unaltered:
    """Files of a folder, with the device, inode, size and modification time that each has when this object is created."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        self._stamps = {name: _stamp(folder / name) for name in names}

    def check(self) -> None:
        """Call this after opening a session: if it does not raise, the session read the verified files.

        Raises:
            BundleError: a file was replaced or written since.
        """
        for name, stamp in self._stamps.items():
            if _stamp(self.folder / name) != stamp:
                raise BundleError(f"{self.folder / name}: replaced or altered while in use; load the bundle again")


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
