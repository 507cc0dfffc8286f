"""What a call of ``kcompiler explain`` or ``tune`` asks for: options as text in, settings and model inputs out."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import kcompiler
from kcompiler.commands import options
from kcompiler.runtime.arrays import ByteArray, FloatArray
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.explanation import Quality, Score
from kcompiler.runtime.fills import NAMED
from kcompiler.runtime.images import Fill, check_image
from kcompiler.runtime.manifest import Manifest
from kcompiler.runtime.positions import Edges, Stride, stride_pair


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every image."""

    explainer: kcompiler.Explainer
    stride: Stride
    target: int | str | None
    fill: Fill
    region: tuple[int, int, int, int] | None
    edges: Edges
    channel: int | None
    quality: Quality
    score: Score
    budget: float | None

    def inputs(self, path: Path) -> tuple[FloatArray, ByteArray]:
        """Model input, in the model's own layout, and picture to draw over [H, W, 3]."""
        if path.suffix == ".npy":
            return _array(path, self.explainer.manifest)
        picture = self.explainer.read_image(path)
        return picture.tensor, picture.pixels

    def settings(self, path: Path) -> dict[str, object]:
        """Everything that decides the scores, JSON-ready: two maps of equal settings are the same map."""
        manifest = self.explainer.manifest
        return {
            "model": manifest.model,
            "model_sha256": manifest.model_sha256,
            "output": manifest.output,
            "reduction": manifest.reduction.model_dump(mode="json") if manifest.reduction is not None else None,
            "patch": list(manifest.patch),
            "shape": list(manifest.shape),
            "bound": {name: bound.sha256 for name, bound in manifest.bound.items()},
            "preprocessing": manifest.preprocessing.model_dump(mode="json") if manifest.preprocessing is not None else None,
            "image": path.name,
            "image_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "stride": list(stride_pair(self.stride)),
            "target": self.target,
            "fill_model_units": fill_record(self.fill),
            "region": list(self.region) if self.region is not None else None,
            "edges": self.edges,
            "channel": self.channel,
            "quality": self.quality,
            "score": self.score,
        }


def read_input(explainer: kcompiler.Explainer, path: Path) -> FloatArray:
    """A picture or .npy file as model input, in the model's own layout."""
    return _array(path, explainer.manifest)[0] if path.suffix == ".npy" else explainer.read_image(path).tensor


def parse_target(explainer: kcompiler.Explainer, text: str | None) -> int | str | None:
    """An index, or a label: which of the two where a label looks like a number is for the bundle to say."""
    return int(text) if text is not None and text.isdecimal() and text not in explainer.labels else text


def parse_fill(explainer: kcompiler.Explainer, bundle: Path, text: str | None) -> Fill:
    """A colour in pixel values, a name, or a picture file, in model units."""
    if text is None:
        return 0.0
    if text in NAMED:
        return text
    if Path(text).is_file():
        picture: FloatArray = explainer.check_image(read_input(explainer, Path(text)))[0]
        return picture
    recipe = explainer.manifest.preprocessing
    if recipe is None:
        raise UsageError(
            f"--fill is in pixel values, but {bundle} has no preprocessing to convert them by; compile with --preprocessing"
        )
    return recipe.fill(options.colour(text))


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
    """What covers, JSON-ready: numbers and names as they are, a picture by its digest."""
    if isinstance(fill, np.ndarray):
        return {"sha256": hashlib.sha256(fill.tobytes()).hexdigest()}
    return list(fill) if isinstance(fill, tuple) else fill


def machine_record(explainer: kcompiler.Explainer) -> dict[str, object]:
    found = {}
    for name in ("kcompiler", "numpy", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"versions": found, "python": platform.python_version(), "device": explainer.device, "batch": explainer.batch,
            "threads": explainer.machine.threads}  # fmt: skip


def _array(path: Path, manifest: Manifest) -> tuple[FloatArray, ByteArray]:
    """A preprocessed input from a .npy file, and its channel mean stretched to 0..255 to draw over."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: not a readable .npy array ({error})") from error
    image = check_image(array, manifest.shape, manifest.layout, str(path), manifest.image_element)
    gray = image[0].mean(axis=0)
    stretched = (gray - gray.min()) / max(float(np.ptp(gray)), 1e-12) * 255
    return array, np.repeat(np.rint(stretched).astype(np.uint8)[..., None], 3, axis=-1)
