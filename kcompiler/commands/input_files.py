"""Reads the files that ``kcompiler explain`` and ``tune`` are given as model inputs, and the options that choose what of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import kcompiler
from kcompiler.runtime.arrays import AnyArray, ByteArray, FloatArray
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.arrays import load_array
from kcompiler.runtime.inputs.formats import format_of
from kcompiler.runtime.inputs.images import check_image
from kcompiler.runtime.inputs.selection import EVERYTHING, Selection
from kcompiler.runtime.inputs.view import View

ARRAYS = (".npy", ".npz")
Window = Annotated[
    str | None,
    typer.Option(metavar="CENTRE,WIDTH", help="Values shown from black to white, in the file's units (DICOM, NIfTI, deep TIFF)."),
]
Frame = Annotated[int | None, typer.Option(help="Frame of a file with several (DICOM, TIFF, GIF, NIfTI), from 0.")]
Axis = Annotated[int | None, typer.Option(help="Axis that a volume (NIfTI) is cut across: 0, 1 or 2. Default: 2.")]
Slice = Annotated[int | None, typer.Option("--slice", help="Slice of a volume, from 0. Default: the middle.")]


def selected(window: str | None, frame: int | None, axis: int | None, index: int | None) -> Selection:
    """What of the files is the picture, from the options.

    Raises:
        UsageError: an option is out of its range.
    """
    return Selection(_window(window), frame, axis, index)


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--window is {text!r}, expected CENTRE,WIDTH, for example 40,400") from error
    return centre, width


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture to explain.

    Attributes:
        tensor: the model's input, in the source's layout.
        picture: what maps are drawn over, uint8 [H, W, 3].
        view: where the model's pixels lie in the picture.
        pixels: uint8 [H, W, 3], what the model sees.
    """

    tensor: FloatArray
    picture: ByteArray
    view: View
    pixels: ByteArray


def read_shown(explainer: kcompiler.Explainer, path: Path, selection: Selection = EVERYTHING) -> Shown:
    """Reads a file as the model's input, and a picture to draw over.

    Arrays (.npy, .npz) are preprocessed images. With a recipe, unsigned integers that are no image of the model's are pixels, and
    so is whatever a window is given for.
    """
    manifest = explainer.manifest
    if path.suffix.lower() in ARRAYS or format_of(path).name == "array":
        array = load_array(path)
        if manifest.preprocessing is None or not _are_pixels(array, manifest, selection):
            if selection != EVERYTHING:
                raise UsageError(f"{path}: is a preprocessed image; leave out --window, --frame, --axis and --slice")
            drawn = _drawn(array, path, manifest)
            return Shown(array, drawn, View.whole(manifest.shape[1:]), drawn)
    chosen = selection
    picture = explainer.read_image(path, window=chosen.window, frame=chosen.frame, axis=chosen.axis, index=chosen.index)
    return Shown(picture.tensor, picture.source, picture.view, picture.pixels)


def read_input(explainer: kcompiler.Explainer, path: Path, selection: Selection = EVERYTHING) -> FloatArray:
    """Reads a file as model input, in the source's layout."""
    return read_shown(explainer, path, selection).tensor


def _are_pixels(array: AnyArray, manifest: Manifest, selection: Selection) -> bool:
    """Whether an array is of pixels to preprocess."""
    channels, *size = manifest.shape
    shape = (channels, *size) if manifest.layout == "NCHW" else (*size, channels)
    images = array.dtype == manifest.image_element.dtype and array.shape in (shape, (1, *shape))
    return selection.window is not None or (array.dtype.kind == "u" and not images)


def _drawn(array: AnyArray, path: Path, manifest: Manifest) -> ByteArray:
    """The picture to draw over of a preprocessed image: its channel mean, scaled to 0..255."""
    image = check_image(array, manifest.shape, manifest.layout, str(path), manifest.image_element)
    gray = image[0].mean(axis=0)
    stretched = (gray - gray.min()) / max(float(np.ptp(gray)), 1e-12) * 255
    return np.repeat(np.rint(stretched).astype(np.uint8)[..., None], 3, axis=-1)
