"""Writing files and folders by atomic rename, so that none is ever half-written, or overwritten without ``force``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kcompiler.runtime.bundle.exchange import Exchange, is_file_name, recover
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.refusals import cannot_be_written


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` into a :class:`UsageError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise UsageError(cannot_be_written(path, error)) from error


def check_writable(folder: Path) -> None:
    """Checks that something may be written into ``folder``, which need not exist: before long work for it.

    Raises:
        UsageError: its file system is read-only, or the user has no permission.
    """
    with naming(folder):
        there = next((path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path)), None)
        if there is not None and there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
            why = "nothing may be written there: read-only, or no permission"
            raise UsageError(f"{there}: cannot be written ({why}); choose another place")


def replace_files(directory: Path, contents: Mapping[str, bytes], *, force: bool, obsolete: Sequence[str] = ()) -> list[Path]:
    """Writes files into ``directory`` (created if absent): all into a temporary folder, then each is renamed into place.

    The last is the record of the others: where it is there, they are. An earlier one goes before anything else, and the new one
    comes last. What was there comes back if the new files cannot be put in its place, and a process that dies meanwhile leaves
    what the next one (:func:`recover`) makes the old files or the new ones of.

    Args:
        directory: where they go.
        contents: by file name.
        force: whether existing files are replaced.
        obsolete: names of files that go with the earlier record.

    Raises:
        UsageError: a name contains a folder, a target exists without ``force``, a target is a folder, or the operating system
            refuses to write.
    """
    for name in contents:
        if not is_file_name(name):
            raise UsageError(f"{name!r} is no file name; choose one without folders in it")
    targets = [directory / name for name in contents]
    recover(directory)
    for target in targets:
        check_replaceable(target, force=force)
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with Exchange(directory) as exchange:
            for name, data in contents.items():
                with naming(directory / name):
                    exchange.write(name, data)
            exchange.make(tuple(name for name in obsolete if name not in contents))
    return targets


def check_replaceable(target: Path, *, force: bool) -> None:
    """Checks that a file may be written at ``target``.

    Raises:
        UsageError: ``target`` is a folder, or exists without ``force``.
    """
    with naming(target):
        if target.is_dir():
            raise UsageError(f"{target}: is a folder, expected a place for a file; choose another name")
        if os.path.lexists(target) and not force:
            raise UsageError(f"{target}: exists already; choose another place or allow overwriting (--force)")


def check_folder_replaceable(target: Path, ours: Callable[[str], bool], *, force: bool) -> None:
    """Checks that a folder may be written at ``target``; ends first what processes that died were writing there and in it.

    Args:
        target: where the folder is to be.
        ours: whether a bundle may hold a file of that name; a folder with any other file is never removed.
        force: whether an existing bundle may be replaced.

    Raises:
        UsageError: ``target`` exists, and ``force`` is not given or it is not a folder of such files alone.
    """
    with naming(target):
        check_writable(target.absolute().parent)
        for folder in (target.absolute().parent, target):
            recover(folder)
        if not os.path.lexists(target):
            return
        if not force:
            raise UsageError(f"{target}: exists already; choose another place or allow overwriting (--force)")
        foreign = _strangers(target, ours) if target.is_dir() else [target.name]
        if foreign or target.is_symlink():
            raise UsageError(
                f"{target}: is not a bundle alone ({', '.join(foreign[:3])}), it will not be replaced; remove it yourself"
            )


RECORDS: Mapping[str, tuple[str, ...]] = {"manifest.json": (), "card.json": ("card.txt",)}
"""The file of a folder of ours that records the others, and what says the same for people, which it does not list. Without such
a record, names alone do not make the others ours."""


def _strangers(folder: Path, ours: Callable[[str], bool]) -> list[str]:
    """Names in ``folder`` that are not those of files that we wrote: others, folders and links, and files of no record."""
    entries = sorted(folder.iterdir())
    names = {entry.name for entry in entries}
    records = [folder / name for name in RECORDS if name in names and ours(name)]
    listed = _listed(records[0]) if records else set()
    return [
        entry.name
        for entry in entries
        if not ours(entry.name) or entry.is_symlink() or not entry.is_file() or (listed is not None and entry.name not in listed)
    ]


def _listed(record: Path) -> set[str] | None:
    """The record and the files that it lists; None if it lists none, or is damaged."""
    try:
        files = json.loads(record.read_bytes())["files"]
        return {record.name, *RECORDS[record.name], *files}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def replace_folder(built: Path, target: Path, ours: Callable[[str], bool], *, force: bool) -> None:
    """Copies the folder ``built`` to the disk of ``target``, then renames the copy to ``target``.

    An existing folder is replaced only if all its files are ``ours``, and comes back as in :func:`replace_files`.

    Raises:
        UsageError: ``target`` may not be replaced, or the operating system refuses to write.
    """
    target = target.absolute()
    check_folder_replaceable(target, ours, force=force)
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with Exchange(target.parent) as exchange:
            exchange.copy(built, target.name)
            exchange.make()
