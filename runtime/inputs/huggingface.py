"""The image processors of Hugging Face's transformers as recipes, from their preprocessor_config.json.

Recipes do what the processors do by Pillow ("slow" ones, or backend "pil") to 8-bit pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.files import text_of
from kcompiler.runtime.inputs.recipe import Preprocessing, what_is_wrong

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""By Pillow's number."""
INERT = frozenset({
    "image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "data_format",
    "input_data_format", "return_tensors", "device", "do_convert_rgb", "default_to_square", "_valid_processor_keys",
    "disable_grouping",
})  # fmt: skip
"""Keys that change no pixel of a picture in colour."""


@dataclass(frozen=True, slots=True)
class _Processor:
    """What a processor does where its file says nothing, in all versions.

    Attributes:
        crops: whether it crops the centre; None where versions differ.
        square: whether a size of one number is a square, not the shorter side.
        share: of the picture that is cropped, where it says crop_pct.
    """

    crops: bool | None
    square: bool
    share: float | None = None


PROCESSORS = {
    "ViT": _Processor(crops=False, square=True),
    "DeiT": _Processor(crops=True, square=True),
    "Beit": _Processor(crops=None, square=True),
    "Siglip": _Processor(crops=False, square=True),
    "CLIP": _Processor(crops=True, square=False),
    "Bit": _Processor(crops=True, square=False),
    "MobileNetV1": _Processor(crops=True, square=False),
    "MobileNetV2": _Processor(crops=True, square=False),
    "ConvNext": _Processor(crops=False, square=False, share=224 / 256),
}
"""By name, without its ending. ResNet, Swin and others are processed by these, too."""
WARPED_FROM = 384
"""Sides from which ConvNext scales pictures without cropping."""


def is_processor(content: Mapping[str, Any]) -> bool:
    """Whether a JSON file is of an image processor."""
    return any(key in content for key in ("image_processor_type", "feature_extractor_type", "image_mean", "do_normalize"))


def by_processor(path: Path, content: Mapping[str, Any]) -> Preprocessing:
    """The recipe of an image processor, with the labels of the config.json beside its file.

    Raises:
        UsageError: a processor that is not known, or a setting that no recipe can express.
    """
    told = {key: value for key, value in content.items() if value is not None}
    defaults = _defaults(path, told)
    settings = _Settings(path, told)
    if not settings.flag("do_resize", True):
        raise settings.wrong("do_resize", "expected true: pictures have many sizes, the model has one")
    normalises, rescales = settings.flag("do_normalize", True), settings.flag("do_rescale", True)
    factor = settings.take("rescale_factor", 1 / 255)
    mean, std = (settings.need(key) if normalises else () for key in ("image_mean", "image_std"))
    number = settings.need("resample")
    if number not in INTERPOLATIONS:
        raise settings.wrong("resample", f"expected one of {', '.join(map(str, INTERPOLATIONS))}")
    resizing = _resizing(settings, defaults)
    settings.check_all_read()
    try:
        return Preprocessing.model_validate(
            {
                **resizing, "interpolation": INTERPOLATIONS[number], "rounded": True, "channel_order": "RGB",
                "scale": factor if rescales else 1.0, "mean": mean if normalises else (0.0,) * 3,
                "std": std if normalises else (1.0,) * 3, "labels": labels_beside(path),
            }
        )  # fmt: skip
    except ValidationError as error:
        raise UsageError(f"{path}: no recipe can express it: {what_is_wrong(error)}") from error


class _Settings:
    """The keys of a file; those that are taken are remembered."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path, self.content, self.read = path, content, set(INERT)

    def take(self, key: str, default: Any) -> Any:
        self.read.add(key)
        return self.content.get(key, default)

    def need(self, key: str) -> Any:
        """A setting whose default differs between versions of transformers."""
        if key not in self.content:
            raise UsageError(f"{self.path}: has no {key}, whose default differs between versions of transformers; add it")
        return self.take(key, None)

    def flag(self, key: str, default: bool | None) -> bool:
        value = self.need(key) if default is None else self.take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "expected true or false")
        return value

    def wrong(self, key: str, expected: str) -> UsageError:
        return UsageError(f"{self.path}: {key} is {self.content.get(key)!r}, {expected}")

    def check_all_read(self) -> None:
        """Raises a :class:`UsageError` for keys that were not taken, unless they switch something off."""
        left = [key for key, value in self.content.items() if key not in self.read and value is not False]
        if left:
            raise UsageError(f"{self.path}: {left[0]} is not known here, so the pictures might be wrong; write a recipe by hand")


def _defaults(path: Path, content: Mapping[str, Any]) -> _Processor:
    name = str(content.get("image_processor_type") or content.get("feature_extractor_type") or "")
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    if name not in PROCESSORS:
        raise UsageError(f"{path}: image processor {name or 'without a name'} is not known, expected {', '.join(PROCESSORS)}")
    return PROCESSORS[name]


def _resizing(settings: _Settings, defaults: _Processor) -> dict[str, object]:
    """Fields of the recipe that say how pictures are resized."""
    size = settings.need("size")
    if isinstance(size, int):
        square = settings.content.get("default_to_square", defaults.square)
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    sides = {key: side for key, side in size.items() if side is not None} if isinstance(size, Mapping) else {}
    crop = _crop(settings, defaults)
    if defaults.share is not None and sides.keys() == {"shortest_edge"} and crop is None:
        side, share = sides["shortest_edge"], float(settings.take("crop_pct", defaults.share))
        if side >= WARPED_FROM:
            return {"resize": "stretch", "size": (side, side)}
        return {"resize": "crop", "size": (side, side), "shorter_side": int(side / share), "crop_at": "floor"}
    if sides.keys() == {"height", "width"}:
        resized = sides["height"], sides["width"]
        return {"resize": "stretch", "size": crop or resized, "resized": resized if crop else None, "crop_at": "floor"}
    if sides.keys() == {"shortest_edge"} and crop is not None:
        return {"resize": "crop", "size": crop, "shorter_side": sides["shortest_edge"], "crop_at": "floor"}
    raise settings.wrong("size", "expected a height and a width, or a shortest_edge with a crop_size")


def _crop(settings: _Settings, defaults: _Processor) -> tuple[int, int] | None:
    """(height, width) that is cropped to; None if nothing is."""
    if not settings.flag("do_center_crop", defaults.crops):
        settings.take("crop_size", None)
        return None
    crop = settings.need("crop_size")
    if isinstance(crop, int):
        return crop, crop
    if not isinstance(crop, Mapping) or not {"height", "width"} <= crop.keys():
        raise settings.wrong("crop_size", "expected a height and a width")
    return crop["height"], crop["width"]


def labels_beside(path: Path) -> tuple[str, ...]:
    """The labels of the config.json beside a file (id2label); none if there is no such file, or its labels are numbers.

    Raises:
        UsageError: labels that are not of the classes 0, 1, 2 and so on.
    """
    config = path.with_name("config.json")
    if not config.exists():
        return ()
    try:
        named = json.loads(text_of(config, "a model's config.json", UsageError)).get("id2label") or {}
        labels = {int(number): str(label) for number, label in named.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{config}: cannot be read ({error}); expected a model's config.json, or none") from error
    if sorted(labels) != list(range(len(labels))):
        raise UsageError(f"{config}: id2label has not one label for each of 0 to {len(labels) - 1}")
    made_up = all(label == f"LABEL_{number}" for number, label in labels.items())
    return () if made_up else tuple(labels[number] for number in range(len(labels)))
