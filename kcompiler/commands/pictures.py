"""What ``kcompiler explain`` is to explain: files, and folders of files, each picture with the place of its results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kcompiler.runtime.errors import UsageError

SUFFIXES = (".npy", ".png", ".json")
"""Of the results of a picture."""
PICTURES = frozenset(
    (
        ".avif", ".bmp", ".dcm", ".dib", ".dicom", ".gif", ".gz", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".nii",
        ".npy", ".npz", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
    )
)  # fmt: skip
"""Suffixes of the files in folders that are taken for pictures."""
FAILED = "failed"
"""Stem of the list of pictures that could not be explained."""


@dataclass(frozen=True, slots=True)
class Job:
    """A picture, and where its results go.

    Attributes:
        path: of the picture.
        folder: for the results.
        stem: start of the results' names.
        suffixes: ends of the results' names.
    """

    path: Path
    folder: Path
    stem: str
    suffixes: tuple[str, ...] = SUFFIXES

    @property
    def results(self) -> tuple[Path, ...]:
        return tuple(self.folder / f"{self.stem}{suffix}" for suffix in self.suffixes)


@dataclass(frozen=True, slots=True)
class Found:
    """What the arguments of a call name.

    Attributes:
        jobs: the pictures.
        skipped: number of files in folders that are no pictures, by suffix.
        folders: whether a folder was named.
    """

    jobs: tuple[Job, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    folders: bool = False


def find(paths: Sequence[Path], out: Path, further: Sequence[str] = ()) -> Found:
    """The pictures among files, and in folders and the folders within them; results mirror the folders below ``out``.

    A single folder's contents come right below ``out``, those of several in folders of their names. What is named as a file is
    taken for a picture, whatever its suffix; in folders suffixes decide, and ``out`` and hidden files are left out.

    Args:
        paths: files and folders.
        out: folder for the results.
        further: suffixes of results beside the usual ones.

    Raises:
        UsageError: no pictures, or two folders of one name.
    """
    folders = [path for path in paths if path.is_dir()]
    names = [path.resolve().name for path in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"two folders are named {max(names, key=names.count)!r}; explain them into different folders")
    jobs, skipped, suffixes = [], Counter[str](), (*SUFFIXES, *further)
    for path in paths:
        if not path.is_dir():
            jobs.append(Job(path, out, path.stem, suffixes))
            continue
        files = list(_files_in(path, out))
        pictures = [file for file in files if file.suffix.lower() in PICTURES]
        skipped.update(file.suffix.lower() or "no suffix" for file in files if file.suffix.lower() not in PICTURES)
        base = out if len(folders) == 1 else out / path.resolve().name
        jobs += [Job(file, base / file.relative_to(path).parent, file.stem, suffixes) for file in pictures]
    if folders and not jobs:
        raise UsageError(f"{folders[0]}: holds no pictures; expected files that end in {', '.join(sorted(PICTURES))}")
    return Found(tuple(_told_apart(jobs, out) if folders else jobs), dict(skipped), bool(folders))


def _files_in(folder: Path, out: Path) -> Iterator[Path]:
    for parent, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if name[0] != "." and (Path(parent) / name).resolve() != out.resolve())
        yield from (Path(parent) / name for name in sorted(names) if name[0] != ".")


def _told_apart(jobs: Sequence[Job], out: Path) -> list[Job]:
    """The results of a.png and a.jpg in one folder begin with their whole names, and so do those of what is named ``FAILED``."""
    count = Counter((job.folder, job.stem) for job in jobs)
    count[out, FAILED] += 1
    return [replace(job, stem=job.path.name) if count[job.folder, job.stem] > 1 else job for job in jobs]


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
