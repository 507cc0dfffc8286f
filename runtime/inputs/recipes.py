"""Recipes that people already have: presets by name, those of Hugging Face and of timm, and our own files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.files import text_of
from kcompiler.runtime.inputs.huggingface import by_processor, is_processor
from kcompiler.runtime.inputs.recipe import Preprocessing
from kcompiler.runtime.inputs.timm import by_pretrained_cfg, is_pretrained_cfg

Shape = tuple[int, int, int]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Of ImageNet's pixels, in the order blue, green, red."""
WHAT = "a preset, a preprocessing file, or a folder with a preprocessor_config.json or config.json"


def _imagenet(shape: Shape) -> Preprocessing:
    """As torchvision's models: the shorter side to 8/7 of the image (256 for 224), the middle of that."""
    return Preprocessing(
        size=shape[1:], resize="crop", crop_share=0.875, crop_at="round", rounded=True, scale=1 / 255, mean=IMAGENET_MEAN,
        std=IMAGENET_STD, channel_order="RGB",
    )  # fmt: skip


def _stretched(shape: Shape, scale: float, shift: float) -> Preprocessing:
    channels = shape[0]
    return Preprocessing(
        size=shape[1:], resize="stretch", rounded=True, scale=scale, mean=(shift,) * channels, std=(1.0,) * channels,
        channel_order="gray" if channels == 1 else "RGB" if channels == 3 else "stored",
    )  # fmt: skip


def _caffe(shape: Shape) -> Preprocessing:
    """As Keras' "caffe" mode: blue, green, red from 0 to 255, less the means."""
    return Preprocessing(
        size=shape[1:], resize="stretch", rounded=True, scale=1.0, mean=CAFFE_MEAN, std=(1.0,) * 3, channel_order="BGR"
    )


PRESETS: dict[str, Callable[[Shape], Preprocessing]] = {
    "imagenet": _imagenet,
    "unit": lambda shape: _stretched(shape, 1 / 255, 0.0),
    "minus-one-one": lambda shape: _stretched(shape, 1 / 127.5, 1.0),
    "caffe": _caffe,
}
"""By name: from the shape (C, H, W) of the model's image to a recipe."""


def recipe_by(given: str | Path) -> Callable[[Shape], Preprocessing]:
    """The recipe that a preset's name, a file, or a folder of a published model stands for, by the model's shape (C, H, W).

    Raises:
        UsageError: there is no such, or a file says something that no recipe can.
    """
    if str(given) in PRESETS:
        return PRESETS[str(given)]
    path = _file(Path(given))
    try:
        content = json.loads(text_of(path, WHAT, UsageError))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); expected a preprocessing file") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: not a valid preprocessing file: expected an object")
    if is_pretrained_cfg(content):
        return lambda shape: by_pretrained_cfg(path, content, shape)
    if is_processor(content):
        recipe = by_processor(path, content)
        return lambda _: recipe
    if "architectures" in content or "model_type" in content:
        raise UsageError(f"{path}: describes a model, not its pictures; give the preprocessor_config.json beside it")
    recipe = Preprocessing.read(path)
    return lambda _: recipe


def _file(path: Path) -> Path:
    """The file that describes the preprocessing of a model's folder; another path as it is."""
    if not path.exists():
        raise UsageError(f"{path}: no such file; expected {WHAT}; presets are {', '.join(PRESETS)}")
    if not path.is_dir():
        return path
    for name in ("preprocessor_config.json", "config.json"):
        if (path / name).exists():
            return path / name
    raise UsageError(f"{path}: is a folder without preprocessor_config.json or config.json; expected {WHAT}")
