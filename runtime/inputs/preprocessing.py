"""Preprocessing: from a picture file to the model's input, by the recipe in the bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kcompiler.runtime.arrays import ByteArray, FloatArray
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.view import View

SIXTEEN_BITS = ("I;16", "I;16B", "I;16L")
DEEP_RAW_MODES = frozenset(f"{mode};16{order}" for mode in ("RGB", "RGBA", "RGBX", "LA", "L") for order in ("B", "L", "N", ""))
Size = Annotated[int, Field(ge=1, le=1 << 16)]


class Preprocessing(BaseModel):
    """How a picture becomes model input: resize, then (pixel * scale - mean) / std per channel, channels first.

    Attributes:
        size: (height, width) of the model input.
        resize: "stretch" scales to ``size``; "crop" scales the shorter side to ``shorter_side`` and crops the centre to ``size``.
        shorter_side: pixels, for "crop" only.
        interpolation: resampling filter, antialiased.
        scale: factor for pixels from 0 to 255.
        mean, std: a number per channel, in the model's channel order, applied after ``scale``.
        channel_order: order of the model's channels; "gray" is a single channel.
        labels: names of the model's classes, in order; may be empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[Size, Size]
    resize: Literal["stretch", "crop"]
    shorter_side: Size | None = None
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    channel_order: Literal["RGB", "BGR", "gray"]
    labels: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return 1 if self.channel_order == "gray" else 3

    @model_validator(mode="after")
    def _agrees(self) -> Preprocessing:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} numbers for channel_order {self.channel_order}")
        if (self.resize == "crop") != (self.shorter_side is not None):
            raise ValueError("shorter_side goes with resize 'crop', and only with it")
        if self.shorter_side is not None and self.shorter_side < max(self.size):
            raise ValueError(f"shorter_side {self.shorter_side} is smaller than the size {list(self.size)} to cut out")
        return self

    @classmethod
    def read(cls, path: Path) -> Preprocessing:
        """Reads the attributes from a JSON file.

        Raises:
            UsageError: unreadable, not JSON, or an attribute is missing, unknown or out of range.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"{path}: cannot be read as JSON ({error}); expected a preprocessing file") from error
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
            raise UsageError(f"{path}: not a valid preprocessing file: {wrong}") from error

    def normalise(self, pixels: npt.ArrayLike) -> FloatArray:
        """Converts pixels [..., channels], 0 to 255 in the model's channel order, to model units."""
        values = np.asarray(pixels, dtype=np.float64) * self.scale
        normalised: FloatArray = ((values - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return normalised

    def to_input(self, pixels: npt.ArrayLike) -> FloatArray:
        """Converts pixels [..., H, W, channels] in the model's channel order to model input [..., channels, H, W]."""
        return np.ascontiguousarray(np.moveaxis(self.normalise(pixels), -1, -3))

    def fill(self, colour: tuple[float, ...]) -> tuple[float, ...]:
        """Converts a colour from pixel units (a number, or red, green, blue) to model units, a number per channel.

        Raises:
            UsageError: another count of numbers.
        """
        if len(colour) not in (1, self.channels):
            raise UsageError(f"fill has {len(colour)} numbers, expected 1 or {self.channels} pixel values")
        values = colour * (self.channels // len(colour))
        return tuple(float(v) for v in self.normalise(values[::-1] if self.channel_order == "BGR" else values))


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A preprocessed picture.

    Attributes:
        pixels: uint8 [H, W, 3], RGB, resized and cropped: what the model sees.
        tensor: float32 [1, C, H, W], the model's input, in model units.
        source: uint8 [height, width, 3], RGB, the whole picture at its own size, upright.
        view: where ``pixels`` lie in ``source``.
    """

    pixels: ByteArray
    tensor: FloatArray
    source: ByteArray
    view: View


def read_picture(path: Path, recipe: Preprocessing) -> Picture:
    """Reads a picture file and preprocesses it.

    Gray pictures become three equal channels where the model takes colour; 16-bit gray is scaled to 0..255 without
    rounding; EXIF rotation is applied; opaque alpha is dropped.

    Raises:
        ImageError: unreadable; transparent; colour for a gray model; several frames; a mode without a clear meaning.
    """
    planes = _planes(path)
    if recipe.channels == 1 and len(planes) == 3:
        if not all(np.array_equal(planes[0], plane) for plane in planes[1:]):
            raise ImageError(f"{path}: a colour picture, but the model takes gray; convert it to gray first")
        planes = planes[:1]
    if recipe.channels == 3 and len(planes) == 1:
        planes = planes * 3
    resized = _resized(planes, recipe)
    height, width = planes[0].shape
    return Picture(
        _shown(resized), _input_of(resized, recipe), _shown(np.stack(planes, axis=-1)), view_of((height, width), recipe)
    )


def view_of(picture: tuple[int, int], recipe: Preprocessing) -> View:
    """Where the model's pixels lie in a picture of (height, width) that ``recipe`` resizes."""
    if recipe.resize == "stretch":
        scale = picture[0] / recipe.size[0], picture[1] / recipe.size[1]
        return View(picture, recipe.size, scale, (0.0, 0.0))
    assert recipe.shorter_side is not None
    factor = min(picture) / recipe.shorter_side  # pixels of the file per pixel of the scaled picture
    top, left = ((whole - part * factor) / 2 for whole, part in zip(picture, recipe.size, strict=True))
    return View(picture, recipe.size, (factor, factor), (top, left))


def _shown(pixels: FloatArray) -> ByteArray:
    """Pixels [H, W, C] of 0 to 255 as a picture, uint8 [H, W, 3]."""
    return np.clip(np.rint(np.broadcast_to(pixels, (*pixels.shape[:2], 3))), 0, 255).astype(np.uint8)


def preprocessed(pixels: ByteArray, recipe: Preprocessing) -> FloatArray:
    """The model's input [1, C, H, W] of a picture, uint8 [height, width, C]: RGB, or gray where the model takes gray."""
    return _input_of(_resized([plane.astype(np.float32) for plane in np.moveaxis(pixels, -1, 0)], recipe), recipe)


def _resized(planes: Sequence[FloatArray], recipe: Preprocessing) -> FloatArray:
    """Channels [H, W] resized to the recipe's size, float32 [H, W, C]."""
    return np.stack([_resize(plane, recipe) for plane in planes], axis=-1)


def _input_of(resized: FloatArray, recipe: Preprocessing) -> FloatArray:
    """The model's input [1, C, H, W] of pixels [H, W, C]."""
    ordered = resized[..., ::-1] if recipe.channel_order == "BGR" else resized
    return recipe.to_input(ordered[None])


def _planes(path: Path) -> list[FloatArray]:
    """Decodes a picture into channels, float32 [H, W] from 0 to 255: a single channel if gray, three (RGB) if colour."""
    with foreign(lambda why: ImageError(f"{path}: not a readable picture ({why})")):
        if not path.exists():
            raise ImageError(f"{path}: no such file; expected a picture")
        with Image.open(path) as opened:
            frames = getattr(opened, "n_frames", 1)
            if frames > 1:
                raise ImageError(f"{path}: has {frames} frames; save the one to explain as a picture of its own")
            deep = opened.mode not in SIXTEEN_BITS and (_raw_modes(opened) & DEEP_RAW_MODES or _deep_netpbm(path, opened))
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    if deep:
        raise ImageError(
            f"{path}: 16 bits a channel, which would be cut to 8; convert it to 8 bits, or to 16-bit gray without alpha"
        )
    if picture.mode == "P":
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in ("L", "RGB") and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("LA", "RGBA", "PA"):
        *_, alpha = picture.split()
        if alpha.getextrema()[0] != 255:
            raise ImageError(f"{path}: has transparent pixels; flatten it onto a background first")
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    if picture.mode in SIXTEEN_BITS:
        return [np.asarray(picture).astype(np.float32) / np.float32(257)]
    if picture.mode in ("1", "L"):
        return [np.asarray(picture.convert("L"), dtype=np.float32)]
    if picture.mode == "RGB":
        return [np.asarray(plane, dtype=np.float32) for plane in picture.split()]
    raise ImageError(f"{path}: picture mode {picture.mode} is not supported; convert it to 8-bit gray or RGB, or 16-bit gray")


def _raw_modes(opened: Image.Image) -> frozenset[str]:
    """The decoder's names for the file's sample layout."""
    modes = set()
    for tile in getattr(opened, "tile", []):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        modes |= {argument for argument in arguments if isinstance(argument, str)}
    return frozenset(modes)


def _deep_netpbm(path: Path, opened: Image.Image) -> bool:
    """Whether a PPM file has a maximum above 255, so that Pillow scales it down (header: magic, width, height, maximum)."""
    if opened.format != "PPM" or opened.mode not in ("RGB", "L"):
        return False
    with path.open("rb") as stream:
        header = re.sub(rb"#[^\n]*", b"", stream.read(4096)).split()
    return header[0] in (b"P2", b"P3", b"P5", b"P6") and int(header[3]) > 255


def _resize(plane: FloatArray, recipe: Preprocessing) -> FloatArray:
    """Resizes [H, W] to the recipe's size; values that the antialiasing filter overshoots beyond 0..255 are kept."""
    height, width = recipe.size
    image = Image.fromarray(plane)
    resample = Image.Resampling[recipe.interpolation.upper()]
    if recipe.resize == "stretch":
        return np.asarray(image.resize((width, height), resample) if image.size != (width, height) else image)
    top, left, bottom, right = view_of((image.height, image.width), recipe).seen
    box = (left, top, right, bottom)
    return np.asarray(image.resize((width, height), resample, box=box))
