"""What a case is: a name, and the files that it consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

Content = bytes | Callable[[Path], object]
"""The bytes of a file, or what makes it at a path: a link, a sparse file, a pipe."""
Files = Mapping[str, Content]
"""Contents by file name; a name may hold folders."""
Case = tuple[str, Files]


def write(files: Files, folder: Path) -> None:
    """Puts the files of a case into ``folder``."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)


def link_loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def sparse(size: int, start: bytes = b"") -> Content:
    """A file of ``size`` bytes that takes hardly any: its start, and zeros that no disk stores."""

    def make(path: Path) -> None:
        with path.open("wb") as stream:
            stream.write(start)
            stream.truncate(size)

    return make
