"""The evaluation pipelines of timm's models as recipes, from their config.json (``pretrained_cfg``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.recipe import Preprocessing, what_is_wrong

Shape = tuple[int, int, int]
CROP_SHARE = 0.875
INERT = frozenset({
    "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load",
    "min_input_size", "fixed_input_size", "num_classes", "label_descriptions", "pool_size", "test_pool_size", "first_conv",
    "classifier", "license", "description", "origin_url", "paper_name", "paper_ids", "notes", "label_offset",
})  # fmt: skip
"""Keys that say nothing of pictures."""
USED = frozenset({
    "input_size", "test_input_size", "interpolation", "crop_pct", "test_crop_pct", "crop_mode", "mean", "std", "label_names",
})  # fmt: skip


def is_pretrained_cfg(content: Mapping[str, Any]) -> bool:
    """Whether a JSON file is of a timm model."""
    return isinstance(content.get("pretrained_cfg"), Mapping)


def by_pretrained_cfg(path: Path, content: Mapping[str, Any], shape: Shape) -> Preprocessing:
    """The recipe of a timm model: as evaluated at ``input_size``, or at ``test_input_size`` if that is the model's ``shape``.

    Raises:
        UsageError: a setting that no recipe can express, or that is not known.
    """
    told = {key: value for key, value in content["pretrained_cfg"].items() if value is not None}
    unknown = sorted(told.keys() - INERT - USED)
    if unknown:
        raise UsageError(f"{path}: pretrained_cfg.{unknown[0]} is not known here, so the pictures might be wrong; write a recipe")
    tested = tuple(told.get("test_input_size", ())) == shape
    channels, *size = told["test_input_size"] if tested else told.get("input_size", (3, 224, 224))
    share = told.get("test_crop_pct", told.get("crop_pct", CROP_SHARE)) if tested else told.get("crop_pct", CROP_SHARE)
    if channels != 3:
        raise UsageError(f"{path}: pretrained_cfg.input_size has {channels} channels, expected 3")
    try:
        return Preprocessing.model_validate(
            {
                **_resizing(path, told.get("crop_mode", "center"), size, share), "size": size, "rounded": True,
                "crop_at": "round",
                "interpolation": told.get("interpolation", "bilinear"), "scale": 1 / 255, "channel_order": "RGB",
                "mean": told.get("mean", (0.485, 0.456, 0.406)), "std": told.get("std", (0.229, 0.224, 0.225)),
                "labels": _labels(content),
            }
        )  # fmt: skip
    except ValidationError as error:
        raise UsageError(f"{path}: no recipe can express it: {what_is_wrong(error)}") from error


def _resizing(path: Path, mode: str, size: list[int], share: float) -> dict[str, object]:
    """Fields of the recipe that say how pictures are resized."""
    scaled = [math.floor(side / share) for side in size]
    if mode == "squash":
        return {"resize": "stretch", "resized": scaled}
    if mode == "center" and size[0] == size[1]:
        return {"resize": "crop", "shorter_side": scaled[0]}
    square = "" if size[0] == size[1] else f" of {size[0]} x {size[1]}"
    raise UsageError(f"{path}: pretrained_cfg.crop_mode {mode}{square} is not supported, expected squash, or center of a square")


def _labels(content: Mapping[str, Any]) -> tuple[str, ...]:
    names = content.get("label_names") or content["pretrained_cfg"].get("label_names") or ()
    return tuple(map(str, names))
