"""Writing results so that nothing is ever half there, and nothing is lost by accident."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kcompiler.runtime.errors import UsageError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the operating system refuses about ``path``, as an error that names it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error


def replace_files(directory: Path, contents: Mapping[str, bytes], *, force: bool) -> list[Path]:
    """Writes files into ``directory`` (made if absent): all to a temporary sibling first, renamed when all are written.

    The last is the record of the others: where it is there, they are. An earlier one goes before anything else, and the new one
    comes last. What was there comes back if the new files cannot be put in its place.

    Raises:
        UsageError: a name that is no plain file name, a file that exists while ``force`` is not given, something there that
            is no file, or the system refuses to write.
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
    """Whether a file may be written at ``target``.

    Raises:
        UsageError: something is there already, and it is no file or ``force`` is not given.
    """
    with naming(target):
        if target.is_dir():
            raise UsageError(f"{target}: is a folder, expected a place for a file; choose another name")
        if os.path.lexists(target) and not force:
            raise UsageError(f"{target}: exists already; choose another place or allow overwriting (--force)")


def check_folder_replaceable(target: Path, ours: Callable[[str], bool], *, force: bool) -> None:
    """Whether a folder may be written at ``target``.

    Raises:
        UsageError: something is there already, and ``force`` is not given or it is anything but a folder of files whose
            names are ``ours``: what is not ours is never removed.
    """
    with naming(target):
        if not os.path.lexists(target):
            return
        if not force:
            raise UsageError(f"{target}: exists already; choose another place or allow overwriting (--force)")
        foreign = sorted(path.name for path in target.iterdir() if not ours(path.name)) if target.is_dir() else [target.name]
        if foreign or target.is_symlink():
            raise UsageError(
                f"{target}: is not a bundle alone ({', '.join(foreign[:3])}), it will not be replaced; remove it yourself"
            )


def replace_folder(built: Path, target: Path, ours: Callable[[str], bool], *, force: bool) -> None:
    """Copies the folder ``built`` to ``target``, in one rename after everything is on the target's disk.

    A folder that is there is replaced only if it holds nothing but files whose names are ``ours``; it comes back if that fails.

    Raises:
        UsageError: ``target`` may not be replaced, or the system refuses to write.
    """
    target = target.absolute()
    check_folder_replaceable(target, ours, force=force)
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        new, old = scratch / "new", scratch / "old"
        try:
            new.mkdir()  # with the user's umask, which the temporary folder does not have
            for path in built.iterdir():
                shutil.copyfile(path, new / path.name)
            try:
                if target.exists():
                    os.replace(target, old)
                os.replace(new, target)
            except BaseException:  # an interrupt as well
                if old.exists() and not target.exists():
                    _put_back(old, target)
                raise
        finally:
            if target.exists() or not old.exists():  # never the only copy
                shutil.rmtree(scratch)


def _put_back(old: Path, target: Path) -> None:
    try:
        os.replace(old, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror or error}); what was there is kept at {old}") from error
