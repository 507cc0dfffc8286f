"""Parses the options of ``kcompiler explain`` and ``tune``, and records settings."""

from __future__ import annotations

import hashlib
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import kcompiler
from kcompiler.commands import options
from kcompiler.commands.input_files import read_input
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.digests import file_record
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.files import check_file
from kcompiler.runtime.inputs.fills import NAMED
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import Box, stride_pair
from kcompiler.runtime.inputs.selection import EVERYTHING
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.request import Quality, Request

PictureBox = tuple[int, int, int, int]
"""(top, left, bottom, right), half-open, in the picture's pixels."""
INDICES = re.compile(r"\d+(,\d+)*", re.ASCII)


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
    """All settings that determine the scores of an image, as JSON values: maps with equal settings are equal.

    Raises:
        ImageError: the image is no regular file.
    """
    check_file(path, "a picture")
    return {
        "model": manifest.model,
        **model_record(manifest),
        "preprocessing": manifest.preprocessing.model_dump(mode="json") if manifest.preprocessing is not None else None,
        "image": path.name,
        "image_sha256": file_record(path).sha256,
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
    """Parses an index, the indices of a dense output ("8,0"), or a label; a text is a label if the bundle has that label.

    Raises:
        UsageError: the output has other axes.
    """
    if text is None or text in explainer.labels or not INDICES.fullmatch(text):
        return text
    shape = explainer.output_shape
    indices = [int(part) for part in text.split(",")]
    if len(indices) == 1:
        return indices[0]
    if len(indices) != len(shape) or any(index >= size for index, size in zip(indices, shape, strict=True)):
        raise UsageError(f"--target is {text!r}, expected a label, an index, or an index for each axis of {list(shape)}")
    return int(np.ravel_multi_index(indices, shape))


def check_target(explainer: kcompiler.Explainer, target: int | str | None) -> None:
    """Raises a :class:`UsageError` if a dense output is to be explained, but not which number of it."""
    shape = explainer.output_shape
    if target is None and sum(size > 1 for size in shape) > 1:
        raise UsageError(
            f"the output is {list(shape)} numbers, not one a class: say which to explain, as in --target "
            f"{','.join('0' for _ in shape)}, or compile with --reduce"
        )


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


def parse_box(text: str | None) -> PictureBox | None:
    if text is None:
        return None
    numbers = options.whole_numbers(text, "--region", ",")
    if len(numbers) != 4:
        raise UsageError(f"--region is {text!r}, expected top,left,bottom,right")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def region_of(box: PictureBox | None, view: View) -> Box | None:
    """A box in the picture's pixels as the model's, to the nearest pixel: what the model sees of it.

    Raises:
        UsageError: the box is empty, beyond the picture, or where the model does not see it.
    """
    if box is None:
        return None
    height, width = view.picture
    top, left, bottom, right = box
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise UsageError(f"--region is {list(box)}, expected top,left,bottom,right inside the image of {height} x {width} pixels")
    top, left, bottom, right = (
        min(max(round(edge), 0), size) for edge, size in zip(view.box_in_model(box), view.model * 2, strict=True)
    )
    if not (top < bottom and left < right):
        seen = [round(edge) for edge in view.seen]
        raise UsageError(f"--region is {list(box)}, but the model sees {seen} of the picture (top, left, bottom, right)")
    return top, left, bottom, right


def parse_range(text: str | None) -> tuple[float, float] | None:
    """Parses "-1,3", or "3" for -3 to 3, as the ends of the colour scale."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise UsageError(f"--range is {text!r}, expected LOW,HIGH, or one number for both sides of 0")
    return (-numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


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
