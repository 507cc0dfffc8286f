"""Libraries that only some formats need: imported when a file of theirs is read."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from kcompiler.runtime.errors import ImageError


def optional(module: str, path: Path, what: str) -> Any:
    """A module of the extra "medical".

    Raises:
        ImageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImageError(f"{path}: is {what}, read by {package}; install it with: pip install 'kcompiler[medical]'") from error
