"""Temporary folders of writers that were killed: removed once nothing in them is the only copy of a result."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

WRITING = ".writing-*"
"""Temporary folders of :func:`replace_files`."""


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Removes what killed writers left in ``folders``, where all files that they were writing, or replacing, exist by now.

    Call this when no writer of one's own runs any more. That of another call which loses its folder reports so.
    """
    for folder in folders:
        for left in folder.glob(WRITING):
            if all((folder / path.name).exists() for path in left.rglob("*") if path.is_file()):
                shutil.rmtree(left, ignore_errors=True)
