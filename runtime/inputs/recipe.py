"""The recipe by which pictures become model inputs, as a bundle holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.files import text_of

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _repeated(fields: Any) -> Any:
    """The fields of a recipe with lists where they are single numbers: of both axes, or of all channels."""
    if not isinstance(fields, dict):
        return fields
    channels = {"RGB": 3, "BGR": 3, "gray": 1}.get(str(fields.get("channel_order")), 1)
    times = {"size": 2, "resized": 2, "mean": channels, "std": channels, "pad": 1}
    return {
        name: [value] * times[name] if name in times and type(value) in (int, float) else value for name, value in fields.items()
    }


class Preprocessing(BaseModel):
    """How a picture becomes model input: resize, then (pixel * scale - mean) / std per channel, channels first.

    Attributes:
        size: (height, width) of the model input.
        resize: "stretch" scales to ``size``, or to ``resized``; "crop" scales the shorter side; "letterbox" scales until the
            whole picture fits. What does not fit ``size`` is cropped to the centre, what is missing is padded.
        shorter_side: pixels, for "crop" only.
        crop_share: for "crop", in place of ``shorter_side``: that is ``size`` by this share, without its fraction (timm's
            crop_pct).
        resized: (height, width) to scale to, for "stretch" only, if it is not ``size``.
        crop_at: where a crop begins: at a fraction of a pixel, in the picture scaled by a fraction of a pixel; or in a picture of
            whole pixels, at half of what is left over, "floor" without the fraction, "round" to the nearest, half to even.
        anchor: where a letterboxed picture lies.
        pad: pixel values around the picture, one number or one a channel, in the picture's order of channels.
        interpolation: resampling filter, antialiased.
        rounded: whether pixels are 8-bit numbers before and after resizing, as Pillow resizes 8-bit pictures; a "crop" then
            takes ``crop_at`` "floor" or "round".
        invert: whether pixels are 255 less what the file shows.
        bits: of each sample that hold data, in files of 16 bits a sample that do not say so; None if such files are refused.
        window: (centre, width) of the values that are shown, for files of values without a range; None is the file's own.
        gray: whether pictures of colour become gray (ITU-R 601) for a model of gray; otherwise they are refused.
        scale: factor for pixels from 0 to 255.
        mean, std: a number per channel, in the model's channel order, applied after ``scale``.
        channel_order: order of the model's channels; "gray" is a single channel, "stored" are as many as ``mean`` has, as the
            file has them.
        labels: names of the model's classes, in order; may be empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[Size, Size]
    resize: Literal["stretch", "crop", "letterbox"]
    shorter_side: Size | None = None
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    scale: Finite
    mean: tuple[Finite, ...]
    std: tuple[Above, ...]
    channel_order: Literal["RGB", "BGR", "gray", "stored"]
    labels: tuple[str, ...] = ()
    crop_share: Annotated[float, Field(gt=0, le=1)] | None = None
    resized: tuple[Size, Size] | None = None
    crop_at: Literal["fraction", "floor", "round"] = "fraction"
    anchor: Literal["centre", "top-left"] = "centre"
    pad: tuple[Annotated[float, Field(ge=0, le=255)], ...] = (0.0,)
    rounded: bool = False
    invert: bool = False
    bits: Annotated[int, Field(ge=9, le=16)] | None = None
    window: tuple[Finite, Above] | None = None
    gray: bool = False

    @property
    def channels(self) -> int:
        """Of the model's image."""
        return {"gray": 1, "stored": len(self.mean)}.get(self.channel_order, 3)

    @property
    def picture_channels(self) -> int:
        """Of the picture that it is made of: three where colour becomes gray."""
        return 3 if self.gray else self.channels

    @property
    def shorter(self) -> int:
        """Pixels that "crop" scales the shorter side to."""
        return self.shorter_side if self.shorter_side is not None else int(min(self.size) / (self.crop_share or 1.0))

    @model_validator(mode="after")
    def _agrees(self) -> Preprocessing:
        if len(self.mean) != self.channels or len(self.std) != self.channels or not self.mean:
            raise ValueError(f"mean and std need {self.channels or 'some'} numbers for channel_order {self.channel_order}")
        if self.scale == 0:
            raise ValueError("scale is 0, expected another number")
        if len(self.pad) not in (1, self.channels):
            raise ValueError(f"pad has {len(self.pad)} numbers, expected 1 or {self.channels}")
        if self.gray and self.channel_order != "gray":
            raise ValueError("gray goes with channel_order 'gray', and only with it")
        self._check_resize()
        return self

    def _check_resize(self) -> None:
        crop_sides = [side for side in (self.shorter_side, self.crop_share) if side is not None]
        if len(crop_sides) != (self.resize == "crop"):
            raise ValueError("shorter_side (or crop_share in its place) goes with resize 'crop', and only with it")
        if self.rounded and (self.resize, self.crop_at) == ("crop", "fraction"):
            raise ValueError("rounded pictures have whole pixels: resize 'crop' takes crop_at 'floor' or 'round'")
        if self.resized is not None and self.resize != "stretch":
            raise ValueError("resized goes with resize 'stretch', and only with it")
        if self.anchor != "centre" and self.resize != "letterbox":
            raise ValueError("anchor goes with resize 'letterbox', and only with it")
        if self.shorter > 1 << 16:
            raise ValueError(f"crop_share {self.crop_share} scales the shorter side to {self.shorter}, expected up to {1 << 16}")

    @classmethod
    def read(cls, path: Path) -> Preprocessing:
        """Reads the attributes from a JSON file, where a single number stands for both sides of a size, and for all channels.

        Raises:
            UsageError: unreadable, not JSON, or an attribute is missing, unknown or out of range.
        """
        try:
            return cls.model_validate(_repeated(json.loads(text_of(path, "a preprocessing file", UsageError))))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"{path}: cannot be read as JSON ({error}); expected a preprocessing file") from error
        except ValidationError as error:
            raise UsageError(f"{path}: not a valid preprocessing file: {what_is_wrong(error)}") from error

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

    def padding(self) -> tuple[float, ...]:
        """Pixel values around a picture, a number per channel, in the picture's order of channels."""
        return self.pad * (self.channels // len(self.pad))


def what_is_wrong(error: ValidationError) -> str:
    """The fields that are wrong, and why, on a line."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
