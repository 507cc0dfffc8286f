"""Exchanges entries of a directory, files or folders, for new ones, all or none, also if the process dies meanwhile.

New entries are written into a temporary folder beside the old ones (on their disk), and a list of them is written last. Then the
old ones are moved into that folder, the record first, and the new ones out of it, the record last. A process that dies before the
first move has changed nothing. After one that dies later, the next process that writes here makes the remaining moves: it finds
the temporary folder, whose lock nobody holds (see ``runtime/scratch.py``), with the list in it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.scratch import Scratch, abandoned

OURS = re.compile(r"[a-z0-9_]{8}")
UNSYNCED = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})
"""What file systems raise that cannot flush a folder."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What is exchanged, by name.

    Attributes:
        new: entries that come, the record last.
        replaced: those of them whose places are taken.
        obsolete: files that go, beside those that are replaced.
    """

    new: tuple[str, ...]
    replaced: tuple[str, ...]
    obsolete: tuple[str, ...] = ()

    @property
    def record(self) -> str:
        return self.new[-1]


class Exchange:
    """An exchange of entries of ``directory``; as a context, it takes its temporary folder with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._names: list[str] = []

    def __enter__(self) -> Self:
        self._scratch = _scratch_in(self.directory)
        self._at = _Places(self._scratch.root, self.directory)
        try:
            self._at.new.mkdir()
            self._at.old.mkdir()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._at.between:
                self._scratch.abandon()  # what is there is needed: the next call settles it
            else:
                self._scratch.remove()
        finally:
            _leave(self.directory)

    def write(self, name: str, data: bytes) -> None:
        """Writes a new file."""
        _write(self._at.new / name, data)
        self._names.append(name)

    def copy(self, built: Path, name: str) -> None:
        """Copies the files of a folder as a new folder, whose mode is that of the user's umask."""
        (self._at.new / name).mkdir()
        for path in built.iterdir():
            copied = self._at.new / name / path.name
            shutil.copyfile(path, copied)
            with copied.open("rb+") as stream:
                os.fsync(stream.fileno())
        self._names.append(name)

    def make(self, obsolete: tuple[str, ...] = ()) -> None:
        """Makes the exchange, or leaves all as it was.

        Raises:
            UsageError: what was there cannot be put back.
        """
        moves = Moves(tuple(self._names), tuple(filter(self._at.taken, self._names)), obsolete)
        listed = self._at.root / "moves.part"
        _write(listed, json.dumps(asdict(moves)).encode())
        listed.rename(self._at.moves)
        try:
            self._at.go(moves)
        except BaseException as error:  # an interrupt as well
            if self._at.left(moves):
                self._put_back(moves, error)
            raise
        _sync(self.directory)

    def _put_back(self, moves: Moves, why: BaseException) -> None:
        try:
            os.replace(self._at.moves, self._at.undone)
            self._at.come_back(moves)
        except OSError as error:
            raise UsageError(
                f"{self.directory / moves.record}: cannot be written ({error.strerror or error}); what was there is kept at "
                f"{self._at.old / moves.record}, and the next call that writes or reads here ends the exchange"
            ) from why


def recover(directory: Path) -> None:
    """Ends the exchanges in ``directory`` of processes that died, and removes what they left; those of the living go on.

    Raises:
        UsageError: the operating system refuses to, or what is found is no exchange.
    """
    found = False
    for scratch in abandoned(_shared(directory), OURS):
        found, at = True, _Places(scratch.root, directory)
        try:
            at.settle()
        except (OSError, ValueError, TypeError, KeyError) as error:
            scratch.abandon()
            why = getattr(error, "strerror", None) or error
            raise UsageError(
                f"{scratch.root}: left by a process that died, cannot be put in order ({why}); make the folder writable, or "
                "remove this from it"
            ) from error
        scratch.remove()
    if found or os.path.isdir(_shared(directory)):
        _leave(directory)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the entries of an exchange lie: ``root`` is the temporary folder, ``directory`` where they belong."""

    root: Path
    directory: Path

    @property
    def new(self) -> Path:
        return self.root / "new"

    @property
    def old(self) -> Path:
        return self.root / "old"

    @property
    def moves(self) -> Path:
        return self.root / "moves.json"

    @property
    def undone(self) -> Path:
        return self.root / "undone.json"

    def taken(self, name: str) -> bool:
        return os.path.lexists(self.directory / name)

    def left(self, moves: Moves) -> list[str]:
        """The new entries that are not in place."""
        return [name for name in moves.new if os.path.lexists(self.new / name)]

    @property
    def between(self) -> bool:
        """Whether the directory is neither as it was nor as it is to be."""
        return self.undone.exists() or (self.old.is_dir() and any(self.old.iterdir()) and any(self.new.iterdir()))

    def go(self, moves: Moves) -> None:
        """Moves the old entries out of their places, the record first, then the new ones into these, the record last."""
        *others, record = moves.new
        if others or moves.obsolete or (self.new / record).is_dir():  # a file by itself is replaced at once
            for name in filter(self.taken, (record, *others, *moves.obsolete)):
                os.replace(self.directory / name, self.old / name)
        self.come(moves)

    def come(self, moves: Moves) -> None:
        for name in self.left(moves):
            os.replace(self.new / name, self.directory / name)

    def come_back(self, moves: Moves) -> None:
        """Removes the new entries that are in place, and moves the old ones back, the record last."""
        for name in (*moves.obsolete, *moves.new):
            if os.path.lexists(self.old / name):
                os.replace(self.old / name, self.directory / name)
            elif name in moves.new and name not in moves.replaced and name not in self.left(moves):
                (self.directory / name).unlink(missing_ok=True)
        self.undone.unlink()

    def settle(self) -> None:
        """Ends the exchange of a process that died.

        Raises:
            ValueError, TypeError, KeyError: it is no exchange of ours.
        """
        if self.new.is_symlink() or self.old.is_symlink():
            raise ValueError("has links for folders")
        if self.undone.is_file():
            self.come_back(_read(self.undone))
        elif self.moves.is_file():
            moves = _read(self.moves)
            left = self.left(moves)
            begun = any(self.old.iterdir()) or len(left) < len(moves.new)
            if begun and moves.record in left and not self.taken(moves.record):  # else somebody has written it since
                for name in moves.obsolete:
                    (self.directory / name).unlink(missing_ok=True)
                self.come(moves)
                _sync(self.directory)


def _read(path: Path) -> Moves:
    moves = Moves(**{name: tuple(map(str, names)) for name, names in json.loads(path.read_bytes()).items()})
    for name in (*moves.new, *moves.obsolete):
        if not is_file_name(name):
            raise ValueError(f"{name!r} is no file name")
    return moves


def is_file_name(text: str) -> bool:
    """Whether a text names a file of the folder that it is taken to be in, and of no other."""
    return text not in ("", ".", "..") and Path(text).name == text and "\0" not in text


def _shared(directory: Path) -> Path:
    """The folder within ``directory`` for the temporary folders of this user: listing it is quick, however full the other is."""
    return directory / f".writing-{0 if sys.platform == 'win32' else os.getuid()}"


def _scratch_in(directory: Path) -> Scratch:
    try:
        while True:
            _shared(directory).mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):  # the last of the others has just removed it
                return Scratch(_shared(directory), "")
    except BaseException:
        _leave(directory)
        raise


def _leave(directory: Path) -> None:
    with suppress(OSError):  # others are writing here
        _shared(directory).rmdir()


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(directory: Path) -> None:
    """Flushes the names in a folder to its disk, where that can be done."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise
    finally:
        os.close(descriptor)
