"""Writing results so that nothing is ever half there, and nothing is lost by accident."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kcompiler.runtime.errors import UsageError


def replace_files(directory: Path, contents: Mapping[str, bytes], *, force: bool) -> list[Path]:
    """Writes files into ``directory`` (made if absent): each to a temporary sibling first, renamed when all are written.

    Raises:
        UsageError: a file exists and ``force`` is not given, or the directory cannot be made.
    """
    paths = {directory / name: data for name, data in contents.items()}
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        raise UsageError(f"{existing[0]}: exists already; choose another place or allow overwriting (--force)")
    make_directory(directory)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
    try:
        for path, data in paths.items():
            (scratch / path.name).write_bytes(data)
        for path in paths:
            os.replace(scratch / path.name, path)
    finally:
        shutil.rmtree(scratch)
    return list(paths)


def replace_folder(built: Path, target: Path, *, force: bool) -> None:
    """Copies the folder ``built`` to ``target``, in one rename after everything is on the target's disk.

    Raises:
        UsageError: ``target`` exists and ``force`` is not given, or it is not a folder of ours to replace.
    """
    if target.exists() and not force:
        raise UsageError(f"{target}: exists already; choose another place or allow overwriting (--force)")
    make_directory(target.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        shutil.copytree(built, scratch / "new")
        if target.exists():
            os.replace(target, scratch / "old")
        os.replace(scratch / "new", target)
    finally:
        shutil.rmtree(scratch)


def make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{directory}: cannot be used as a folder ({error.strerror}); choose another place") from error
