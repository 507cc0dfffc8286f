"""Writing files and folders by atomic rename, so that none is ever half-written, or overwritten without ``force``."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kcompiler.runtime.errors import UsageError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` into a :class:`UsageError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error


def replace_files(directory: Path, contents: Mapping[str, bytes], *, force: bool) -> list[Path]:
    """Writes files into ``directory`` (created if absent): all into a temporary folder, then each is renamed into place.

    The last is the record of the others: where it is there, they are. An earlier one goes before anything else, and the new one
    comes last. What was there comes back if the new files cannot be put in its place.

    Raises:
        UsageError: a name contains a folder, a target exists without ``force``, a target is a folder, or the operating system
            refuses to write.
    """
    targets = [directory / name for name in contents]
    for target, name in zip(targets, contents, strict=True):
        if Path(name).name != name:
            raise UsageError(f"{name!r} is no file name; choose one without folders in it")
        check_replaceable(target, force=force)
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
        new, old = scratch / "new", scratch / "old"
        try:
            old.mkdir()
            new.mkdir()
            for name, data in contents.items():
                (new / name).write_bytes(data)
            _exchange(targets, new, old)
        finally:
            if not any(old.glob("*")) or all(map(os.path.lexists, targets)):  # never the only copy
                shutil.rmtree(scratch)
    return targets


def _exchange(targets: Sequence[Path], new: Path, old: Path) -> None:
    """Moves what ``targets`` are to ``old`` and those of their names in ``new`` to their places, or leaves all as it was."""
    *others, record = targets
    try:
        if others:  # a record by itself is replaced at once
            for target in (record, *others):
                if os.path.lexists(target):
                    os.replace(target, old / target.name)
        for target in targets:
            os.replace(new / target.name, target)
    except BaseException:  # an interrupt as well
        for target in targets:
            if (old / target.name).exists():
                os.replace(old / target.name, target)
            elif others and not (new / target.name).exists():
                target.unlink(missing_ok=True)
        raise


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
    """Checks that a folder may be written at ``target``.

    Args:
        target: where the folder is to be.
        ours: whether a bundle may hold a file of that name; a folder with any other file is never removed.
        force: whether an existing bundle may be replaced.

    Raises:
        UsageError: ``target`` exists, and ``force`` is not given or it is not a folder of such files alone.
    """
    with naming(target):
        if not os.path.lexists(target):
            return
        if not force:
            raise UsageError(f"{target}: exists already; choose another place or allow overwriting (--force)")
        foreign = _strangers(target, ours) if target.is_dir() else [target.name]
        if foreign or target.is_symlink():
            raise UsageError(
                f"{target}: is not a bundle alone ({', '.join(foreign[:3])}), it will not be replaced; remove it yourself"
            )


RECORDS = ("manifest.json", "card.json")
"""The file of a folder of ours that records the others: without one, names alone do not make the others ours."""


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
        return {record.name, *files}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def replace_folder(built: Path, target: Path, ours: Callable[[str], bool], *, force: bool) -> None:
    """Copies the folder ``built`` to the disk of ``target``, then renames the copy to ``target``.

    An existing folder is replaced only if all its files are ``ours``, and is restored if the rename fails.

    Raises:
        UsageError: ``target`` may not be replaced, or the operating system refuses to write.
    """
    target = target.absolute()
    check_folder_replaceable(target, ours, force=force)
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        new, old = scratch / "new", scratch / "old"
        try:
            new.mkdir()  # takes its mode from the user's umask; a folder of mkdtemp is private
            for path in built.iterdir():
                shutil.copyfile(path, new / path.name)
            try:
                if target.exists():
                    os.replace(target, old)
                os.replace(new, target)
            except BaseException:  # also KeyboardInterrupt
                if old.exists() and not target.exists():
                    _put_back(old, target)
                raise
        finally:
            if target.exists() or not old.exists():  # otherwise ``old`` is the only copy
                shutil.rmtree(scratch)


def _put_back(old: Path, target: Path) -> None:
    try:
        os.replace(old, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror or error}); what was there is kept at {old}") from error
