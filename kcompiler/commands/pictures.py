"""What ``kcompiler explain`` is to explain: pictures, one by one, each with the place of its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kcompiler.runtime.errors import UsageError

SUFFIXES = (".npy", ".png", ".json")
"""Of the results of a picture."""


@dataclass(frozen=True, slots=True)
class Job:
    """A picture, and where its results go.

    Attributes:
        path: of the picture.
        folder: for the results.
        stem: start of the results' names.
    """

    path: Path
    folder: Path
    stem: str

    @property
    def results(self) -> tuple[Path, ...]:
        return tuple(self.folder / f"{self.stem}{suffix}" for suffix in SUFFIXES)


def target_of(name: str, stem: str) -> int | None:
    """The target in a file name that --top writes for a picture with this stem; None for other file names."""
    number = name.removeprefix(f"{stem}.")
    return int(number) if number.isdecimal() and number != name else None


def check_output(jobs: Sequence[Job], out: Path, *, replace: bool) -> None:
    """Checks that the results can be written, each to files of its own.

    Raises:
        UsageError: they cannot, or would replace something without ``replace``.
    """
    twice = [job for job, count in Counter((job.folder, job.stem) for job in jobs).items() if count > 1]
    if twice:
        raise UsageError(
            f"two images are named {twice[0][1]!r} and would write the same files; explain them into different folders"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file, expected a folder")
    if out.is_dir() and any(out.iterdir()) and not replace:
        raise UsageError(f"{out}: exists and is not empty; choose another folder, or allow overwriting (--force)")


def check_inputs_kept(jobs: Sequence[Job]) -> None:
    """Raises a :class:`UsageError` if results would overwrite an image that is to be explained."""
    results = {result.absolute() for job in jobs for result in job.results}
    stems: dict[Path, set[str]] = {}
    for job in jobs:
        stems.setdefault(job.folder.absolute(), set()).add(job.stem)
    identities = {_identity(result) for result in results if result.exists()}
    for job in jobs:
        path = job.path.absolute()
        of_top = any(target_of(path.stem, path.stem[:at]) is not None and path.stem[:at] in stems.get(path.parent, ())
                     for at in range(len(path.stem)) if path.stem[at] == ".")  # fmt: skip
        if of_top or path in results or (path.exists() and _identity(path) in identities):
            raise UsageError(f"{job.path}: would be overwritten by its own results; choose another folder")


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of a file."""
    status = path.stat()
    return status.st_dev, status.st_ino
