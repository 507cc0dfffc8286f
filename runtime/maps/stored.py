"""Saved maps: raw scores, a picture, any other files, and a record of everything else, which names the others' digests.

A map is whole if its record is there and all digests hold. Records of earlier versions name no digests: such a map is whole if
its scores can be read and its picture is there.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.exchange import is_file_name, recover
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.maps.answer import Answer

SCORES, RECORD = ".npy", ".json"
DIGESTS = "sha256"
"""Entry of a record: the SHA-256 digests of the other files, by the ends of their names."""


def write_map(
    directory: Path,
    name: str,
    scores: FloatArray,
    drawing: Image.Image,
    record: Mapping[str, object],
    *,
    files: Mapping[str, bytes] | None = None,
    force: bool,
) -> list[Path]:
    """Writes the files of a map, none of them half-written; the record last. Those that an earlier record names go with it.

    Args:
        directory: created if absent.
        name: start of the files' names.
        scores, drawing, record: what becomes ``name``.npy, ``name``.png and ``name``.json.
        files: contents of further files by the ends of their names (".nii.gz").
        force: replace existing files.

    Raises:
        UsageError: a file exists and ``force`` is not given.
    """
    raw, picture = io.BytesIO(), io.BytesIO()
    np.save(raw, scores)
    drawing.save(picture, format="PNG")
    contents = {SCORES: raw.getvalue(), ".png": picture.getvalue(), **(files or {})}
    return write_recorded(directory, name, contents, record, force=force)


def write_recorded(
    directory: Path, name: str, contents: Mapping[str, bytes], record: Mapping[str, object], *, force: bool
) -> list[Path]:
    """Writes files, by the ends of their names, and their record with the digests; see :func:`write_map`."""
    digests = {suffix: hashlib.sha256(data).hexdigest() for suffix, data in contents.items()}
    text = json.dumps({**record, DIGESTS: digests}, indent=1).encode()
    recover(directory)
    earlier = [name + suffix for suffix in _named(directory / f"{name}{RECORD}")]
    named = {name + suffix: data for suffix, data in (*contents.items(), (RECORD, text))}
    return replace_files(directory, named, force=force, obsolete=earlier)


def is_whole(record: Path) -> bool:
    """Whether all files are there that a record names, as they were written with it; see above for one that names none."""
    content = _content(record)
    if content is None:
        return False
    if DIGESTS not in content:
        return record.with_name(f"{_stem(record)}.png").is_file() and has_scores(record)
    digests = content[DIGESTS]
    return isinstance(digests, dict) and all(_holds(record, str(suffix), digest) for suffix, digest in digests.items())


def has_scores(record: Path) -> bool:
    """Whether raw scores, float32 [rows, cols], are where the map of a record has them: there may be no record yet."""
    try:
        scores = np.load(record.with_name(_stem(record) + SCORES), allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return isinstance(scores, np.ndarray) and scores.dtype == np.float32 and scores.ndim == 2


def _holds(record: Path, suffix: str, digest: object) -> bool:
    if not _is_end(suffix):
        return False
    try:
        with record.with_name(_stem(record) + suffix).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == digest
    except OSError:
        return False


def _named(record: Path) -> list[str]:
    """Ends of the names of the files that are there as a record names them."""
    digests = (_content(record) or {}).get(DIGESTS)
    return [suffix for suffix, digest in digests.items() if _holds(record, suffix, digest)] if isinstance(digests, dict) else []


def _is_end(suffix: str) -> bool:
    """Whether this can be the end of a file's name, after another dot at the least."""
    return suffix.startswith(".") and is_file_name(f"a{suffix}")


def _content(record: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(record.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _stem(record: Path) -> str:
    return record.name.removesuffix(RECORD)


def read_map(path: Path) -> dict[str, Any]:
    """The attributes of a heat map, by name, from its record (.json) and the scores (.npy) in the same folder.

    Raises:
        ImageError: the files are not those of a map, or are damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        data = path.with_suffix(SCORES).read_bytes()
        if DIGESTS in content and hashlib.sha256(data).hexdigest() != content[DIGESTS][SCORES]:
            raise ValueError("the scores beside it are of another map")
        return _attributes(content, data)
    except (OSError, ValueError, EOFError, KeyError, TypeError, IndexError) as error:
        raise ImageError(f"{path}: is no heat map that can be read, or damaged ({error})") from error


def _attributes(content: dict[str, Any], data: bytes) -> dict[str, Any]:
    scores = np.load(io.BytesIO(data), allow_pickle=False)
    if scores.dtype != np.float32 or scores.shape != (len(content["ys"]), len(content["xs"])):
        raise ValueError(f"scores are {scores.dtype} {scores.shape}")
    sampled = np.full(scores.shape, content["sampled"] is None)
    sampled.flat[np.asarray(content["sampled"] or (), np.int64)] = True
    as_they_are = {name: content[name] for name in ("target", "label", "score", "complete")}
    return {
        **as_they_are,
        "scores": scores,
        "unoccluded": float(content["unoccluded"]),
        "ys": np.array(content["ys"]),
        "xs": np.array(content["xs"]),
        "patch": tuple(content["patch"]),
        "image": tuple(content["image"]),
        "seconds": float(content["seconds"]),
        "sampled": sampled,
        "plan": SamplingPlan.model_validate(content["plan"]),
        "warnings": tuple(content["warnings"]),
        "answer": Answer.read(content.get("answer")),
    }
