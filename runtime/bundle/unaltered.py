"""Detects changes to a bundle's files after their checksums were verified.

Sessions open on the files later, some much later, and keep the file of weights mapped: who writes into it changes the weights of
a loaded model, and who cuts it off ends the process (SIGBUS) when a page that is gone is read.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from kcompiler.runtime.bundle.digests import FileRecord, file_record
from kcompiler.runtime.errors import BundleError

Stamp = tuple[int, ...]


class Unaltered:
    """Files of a folder, with the device, inode, size, and times of change that each has when this object is created."""

    def __init__(self, folder: Path, files: Mapping[str, FileRecord]) -> None:
        """For ``files`` that have just been verified."""
        self.folder, self._files = folder, files
        self._paths = {name: folder / name for name in files}
        self._stamps = {name: _stamp(path) for name, path in self._paths.items()}
        self._looking = threading.Lock()

    def check(self) -> None:
        """Call this after opening a session, and around each explanation: if it does not raise, they read the verified files.

        A file whose times changed, and nothing else, is read again: a link to it, or other permissions, do no harm.

        Raises:
            BundleError: a file was replaced or written since.
        """
        for name, path in self._paths.items():
            if (now := _stamp(path)) != self._stamps[name]:
                with self._looking:
                    self._look_again(name, path, now)

    def _look_again(self, name: str, path: Path, now: Stamp) -> None:
        same = now and now[:3] == self._stamps[name][:3]
        if not same or file_record(path) != self._files[name] or _stamp(path) != now:
            raise BundleError(f"{path}: replaced or altered while in use; load the bundle again")
        self._stamps[name] = now


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
