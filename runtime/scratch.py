"""Temporary folders that go whatever happens: each is locked while its process lives, and what the dead left goes next time."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from kcompiler.runtime.errors import MachineError
from kcompiler.runtime.refusals import helps, why

LOCK = "lock"
NAME_BYTES = 4
OURS = re.compile(r"kcompiler-[a-z]+-[a-z0-9_]{8}")
"""Names of this module's folders among the temporary ones of all programs."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
"""What a write raises, which says no file's name."""
ELSEWHERE = "set TMPDIR to another folder"
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF})
"""What a file system raises that has no locks."""


class Lost(Exception):
    """Another process has taken a folder for one that a dead process left, before this one could lock it."""


class Scratch:
    """A folder of this process, locked against removal by others; it goes with the last reference to this object, or at exit.

    A process that is killed loses its locks: that is how :func:`abandoned` tells what it left from what is in use, on any file
    system with locks, also across the containers of a machine. Without locks nothing of another process is ever removed.

    Attributes:
        root: the folder, with the lock in it.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        """Creates a folder in ``parent``."""
        while True:
            lock = self._own(parent / f"{prefix}{secrets.token_hex(NAME_BYTES)}")  # first, so that no interrupt comes between
            try:
                os.mkdir(self.root, mode=0o700)
                lock.append(_locked(self.root / LOCK, create=True))
            except (FileExistsError, Lost, FileNotFoundError) as error:
                self._finalizer.detach()  # it is another process's, or has become that
                if isinstance(error, FileNotFoundError) and not parent.is_dir():
                    raise
                continue
            break

    def _own(self, root: Path) -> list[int]:
        """Makes this object remove ``root``; the descriptor of its lock goes into the list that is returned."""
        self.root = root
        lock: list[int] = []
        self._finalizer = weakref.finalize(self, _finish, root, lock, os.getpid())
        return lock

    @classmethod
    def taken_over(cls, root: Path) -> Self | None:
        """The folder of a process that is dead; None if it lives, or nobody can tell, or another process is taking it over."""
        try:
            lock = _locked(root / LOCK, create=False, sure=True)
        except FileNotFoundError:  # not locked yet, and then its maker makes another, or its last step of removal is left
            with contextlib.suppress(OSError):
                root.rmdir()
            return None
        except (Lost, OSError):
            return None
        taken = cls.__new__(cls)
        taken._own(root).append(lock)
        return taken

    def remove(self) -> None:
        """Removes the folder. What cannot be removed now is left to the next run."""
        self._finalizer()

    def abandon(self) -> None:
        """Leaves the folder to the next process, which finds it by :func:`abandoned`."""
        if (kept := self._finalizer.detach()) is not None:
            _release(kept[2][1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def abandoned(parent: Path, name: re.Pattern[str]) -> Iterator[Scratch]:
    """The folders in ``parent`` that dead processes of this user left, each taken over."""
    try:
        entries = [entry for entry in os.scandir(parent) if name.fullmatch(entry.name)]
    except OSError:  # no such folder, or none that can be read: then nothing was left in it
        return
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            if _is_own_folder(entry.stat(follow_symlinks=False)) and (taken := Scratch.taken_over(Path(entry.path))) is not None:
                yield taken


def temporary(kind: str, parent: Path | None = None) -> Scratch:
    """A folder in ``parent``, or among the system's temporary ones, named for its ``kind``: letters a to z. See :func:`inside`.

    Removes first what dead processes left there.

    Raises:
        MachineError: it cannot be created.
    """
    try:
        parent = parent or Path(tempfile.gettempdir())
        for left in abandoned(parent, OURS):
            left.remove()
        made = Scratch(parent, f"kcompiler-{kind}-")
        inside(made).mkdir()
    except OSError as error:
        raise MachineError(f"{error.filename or 'TMPDIR'}: {_refused(error)}") from error
    return made


def inside(scratch: Scratch) -> Path:
    """Where the files of a :func:`temporary` folder go, apart from the lock."""
    return scratch.root / "files"


@contextlib.contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """A :func:`temporary` folder as a context; gives the place of its files.

    Raises:
        MachineError: files cannot be written there: the disk is full, say.
    """
    with temporary(kind) as made, naming_temporary(made):
        yield inside(made)


@contextlib.contextmanager
def naming_temporary(scratch: Scratch) -> Iterator[None]:
    """Turns what the system says of a folder's files into a :class:`MachineError`."""
    try:
        yield
    except OSError as error:
        named = str(error.filename or "")
        if named.startswith(str(scratch.root)) or (not named and error.errno in FULL):
            raise MachineError(f"{named or scratch.root}: {_refused(error)}") from error
        raise


def _refused(error: OSError) -> str:
    helping = f"free space, or {ELSEWHERE}" if error.errno in FULL else helps(error)
    return f"a temporary file cannot be written ({why(error)}); {helping}"


def _locked(path: Path, *, create: bool, sure: bool = False) -> int:
    """A descriptor of the file that holds its lock, as long as it is open; ``sure``: not where there are no locks.

    Raises:
        Lost: it is locked, or was removed meanwhile.
    """
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        if not _lock(descriptor) and sure:
            raise Lost(path)
        mine = os.fstat(descriptor)
        there = path.stat()
        if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
            raise Lost(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> bool:
    """Locks a file; False where there are no locks.

    Raises:
        Lost: another has the lock.
    """
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Lost(str(error)) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _is_own_folder(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and (sys.platform == "win32" or status.st_uid == os.getuid())


def _release(lock: list[int]) -> None:
    while lock:
        os.close(lock.pop())


def _finish(root: Path, lock: list[int], owner: int) -> None:
    """Removes a folder and its lock; a forked child of the ``owner`` leaves them."""
    try:
        if os.getpid() == owner:
            _clear(root)
    except BaseException:  # an interrupt, which is not to leave anything
        _clear(root)
        raise
    finally:
        _release(lock)


def _clear(root: Path) -> None:
    """Removes a folder, the lock last: whatever interrupts this, what is left is locked or known to be nobody's."""
    with contextlib.suppress(OSError):  # what is left is taken over by the next run
        for entry in [entry for entry in os.scandir(root) if entry.name != LOCK]:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        (root / LOCK).unlink(missing_ok=True)
        root.rmdir()
