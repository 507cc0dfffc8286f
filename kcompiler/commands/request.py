"""Parses the options of ``kcompiler explain`` and ``tune``, and records settings."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import kcompiler
from kcompiler.commands import options
from kcompiler.commands.input_files import read_input as read_input
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.fills import NAMED
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import stride_pair
from kcompiler.runtime.inputs.selection import EVERYTHING
from kcompiler.runtime.request import Quality, Request


def model_record(manifest: Manifest) -> dict[str, object]:
    """All that a bundle's exact outputs depend on beside the image, as JSON values."""
    return {
        "model_sha256": manifest.model_sha256,
        "output": manifest.output,
        "reduction": manifest.reduction.model_dump(mode="json") if manifest.reduction is not None else None,
        "patch": list(manifest.patch),
        "shape": list(manifest.shape),
        "bound": {name: bound.sha256 for name, bound in manifest.bound.items()},
    }


def settings_record(manifest: Manifest, request: Request, path: Path) -> dict[str, object]:
    """All settings that determine the scores of an image, as JSON values: maps with equal settings are equal."""
    return {
        "model": manifest.model,
        **model_record(manifest),
        "preprocessing": manifest.preprocessing.model_dump(mode="json") if manifest.preprocessing is not None else None,
        "image": path.name,
        "image_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "stride": list(stride_pair(request.stride)),
        "target": request.target,
        "fill_model_units": fill_record(request.fill),
        "region": list(request.region) if request.region is not None else None,
        "edges": request.edges,
        "channel": request.channel,
        "quality": request.quality,
        "score": request.score,
        **({"selection": request.selection.record} if request.selection != EVERYTHING else {}),
    }


def parse_target(explainer: kcompiler.Explainer, text: str | None) -> int | str | None:
    """Parses an index or a label; a number is a label if the bundle has that label."""
    return int(text) if text is not None and text.isdecimal() and text not in explainer.labels else text


def parse_fill(explainer: kcompiler.Explainer, bundle: Path, text: str | None) -> Fill:
    """Parses a colour in pixel values, a fill's name, or the path of a picture; numbers are returned in model units."""
    if text is None:
        return 0.0
    if text in NAMED:
        return text
    if Path(text).is_file():
        picture: FloatArray = explainer.check_image(read_input(explainer, Path(text)))[0]
        return picture
    pixels, recipe = _colour(text), explainer.manifest.preprocessing
    if recipe is None:
        raise UsageError(
            f"--fill is in pixel values, but {bundle} has no preprocessing to convert them by; compile with --preprocessing"
        )
    return recipe.fill(pixels)


FILLS = f"expected a pixel value, red,green,blue, {', '.join(NAMED)}, or a picture file that exists"


def _colour(text: str) -> tuple[float, ...]:
    """Parses "128" or "128,110,90" as pixel values.

    Raises:
        UsageError: not one or three finite numbers.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--fill is {text!r}, {FILLS}") from error
    if len(numbers) not in (1, 3):
        raise UsageError(f"--fill is {text!r}, {FILLS}")
    return numbers


def parse_quality(text: str) -> Quality:
    try:
        return "exact" if text == "exact" else float(text)
    except ValueError as error:
        raise UsageError(f"--quality is {text!r}, expected 'exact' or an SSIM") from error


def parse_box(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    numbers = options.whole_numbers(text, "--region", ",")
    if len(numbers) != 4:
        raise UsageError(f"--region is {text!r}, expected top,left,bottom,right")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def fill_record(fill: Fill) -> object:
    """The fill as a JSON value: numbers and names as they are, a picture by its digest."""
    if isinstance(fill, np.ndarray):
        return {"sha256": hashlib.sha256(fill.tobytes()).hexdigest()}
    return list(fill) if isinstance(fill, tuple) else fill


def machine_record(explainer: kcompiler.Explainer) -> dict[str, object]:
    versions = {}
    for name in ("kcompiler", "numpy", "onnxruntime", "onnxruntime-gpu"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "python": platform.python_version(), "device": explainer.device, "batch": explainer.batch,
            "threads": explainer.machine.threads}  # fmt: skip
