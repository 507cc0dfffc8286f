"""Temporary folders of writers that were killed: removed once nothing in them is the only copy of a result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

WRITING = ".writing-*"
"""Temporary folders of :func:`replace_files`."""
SETTLED = 5.0
"""Seconds after which a temporary folder that is still there is taken for left: writing takes a fraction of one."""


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Removes what killed writers left in ``folders``, where all files that they were writing, or replacing, exist by now."""
    left = [path for folder in folders for path in folder.glob(WRITING) if _is_no_only_copy(path)]
    if left:
        time.sleep(SETTLED)
        for path in left:
            if _is_no_only_copy(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_no_only_copy(left: Path) -> bool:
    return all((left.parent / path.name).exists() for path in left.rglob("*") if path.is_file())
