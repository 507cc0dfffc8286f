"""Saved maps: raw scores, a picture, and a record of everything else, which names the others' digests."""

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
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.maps.answer import Answer


def write_map(
    directory: Path,
    name: str,
    scores: FloatArray,
    drawing: Image.Image,
    record: Mapping[str, object],
    *,
    further: Mapping[str, bytes],
    force: bool,
) -> list[Path]:
    """Writes the files of a map, and ``further`` ones by their suffixes, none of them half-written; the record last.

    Raises:
        UsageError: a file exists and ``force`` is not given.
    """
    raw, picture = io.BytesIO(), io.BytesIO()
    np.save(raw, scores)
    drawing.save(picture, format="PNG")
    contents = {".npy": raw.getvalue(), ".png": picture.getvalue(), **further}
    digests = {suffix: hashlib.sha256(data).hexdigest() for suffix, data in contents.items()}
    contents[".json"] = json.dumps({**record, "sha256": digests}, indent=1).encode()
    return replace_files(directory, {name + suffix: data for suffix, data in contents.items()}, force=force)


def read_map(path: Path) -> dict[str, Any]:
    """The attributes of a heat map, by name, from its record (.json) and the scores (.npy) in the same folder.

    Raises:
        ImageError: the files are not those of a map, or are damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        data = path.with_suffix(".npy").read_bytes()
        if "sha256" in content and hashlib.sha256(data).hexdigest() != content["sha256"][".npy"]:
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
