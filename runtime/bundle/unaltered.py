"""Whether the files of a bundle are still those whose checksums were verified: sessions open on them later, some much later."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kcompiler.runtime.errors import BundleError


class Unaltered:
    """Some files of a folder, as they are when this is made: by file system, inode, size and time of the last change."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        self._known = {name: _stamp(folder / name) for name in names}

    def check(self) -> None:
        """To be called once a session is open on them: it then has the files that were verified.

        Raises:
            BundleError: one was replaced or written since.
        """
        for name, known in self._known.items():
            if _stamp(self.folder / name) != known:
                raise BundleError(f"{self.folder / name}: replaced or altered while in use; load the bundle again")


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
