"""Resizing by recipes, against the pipelines that they stand for, written with Pillow alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs.preprocessing import Preprocessing, preprocessed, read_picture

UNIT = {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "channel_order": "RGB"}
SIZES = [(300, 401), (401, 300), (97, 31), (224, 224), (64, 500), (2, 3)]
FILTERS = ["bilinear", "bicubic", "lanczos", "nearest"]


def recipe(**changes) -> Preprocessing:
    return Preprocessing.model_validate({"size": (64, 64), "resize": "stretch", **UNIT, **changes})


def picture(height, width, channels=3):
    """Noise beside flat black and white, where filters overshoot."""
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8)
    pixels[: height // 2] = np.where(pixels[: height // 2] > 127, 255, 0)
    return pixels


def pixels_of(pixels, asked):
    return preprocessed(pixels, asked)[0].transpose(1, 2, 0)


def along_x_then_y(image, size, interpolation):
    """As Pillow resizes up to version 12; from 13 on it takes the axis first that makes less work."""
    resample = Image.Resampling[interpolation.upper()]
    return image.resize((size[0], image.height), resample).resize(size, resample)


def torchvision(pixels, shorter, crop, interpolation):
    """Resize(shorter) and CenterCrop(crop) of a PIL image, as torchvision.transforms.functional does them."""
    image = Image.fromarray(pixels)
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    new_short, new_long = shorter, int(shorter * long / short)
    new_w, new_h = (new_short, new_long) if w <= h else (new_long, new_short)
    image = along_x_then_y(image, (new_w, new_h), interpolation)
    crop_h, crop_w = crop
    left, top = max((crop_w - new_w) // 2, 0), max((crop_h - new_h) // 2, 0)
    padded = Image.new("RGB", (max(new_w, crop_w), max(new_h, crop_h)))
    padded.paste(image, (left, top))
    top, left = (round((side - part) / 2.0) for side, part in ((padded.height, crop_h), (padded.width, crop_w)))
    return np.asarray(padded.crop((left, top, left + crop_w, top + crop_h)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("shorter", "crop"), [(73, (64, 64)), (70, (33, 70)), (50, (64, 60)), (64, (80, 64))])
def test_torchvisions_pipeline_to_the_bit(size, interpolation, shorter, crop):
    asked = recipe(size=crop, resize="crop", shorter_side=shorter, crop_at="round", rounded=True, interpolation=interpolation)
    pixels = picture(*size)
    np.testing.assert_array_equal(pixels_of(pixels, asked), torchvision(pixels, shorter, crop, interpolation))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_stretch_and_crop_of_8_bits(size, interpolation):
    pixels = picture(*size)
    scaled = np.asarray(along_x_then_y(Image.fromarray(pixels), (90, 81), interpolation))
    asked = recipe(size=(60, 70), resized=(81, 90), rounded=True, interpolation=interpolation)
    np.testing.assert_array_equal(pixels_of(pixels, asked), scaled[10:70, 10:80])
    unrounded = pixels_of(pixels, asked.model_copy(update={"rounded": False}))
    if interpolation == "nearest":
        np.testing.assert_array_equal(unrounded, scaled[10:70, 10:80])
    elif interpolation == "bilinear":  # the others overshoot between the axes, too, which rounding clips there
        assert np.abs(np.clip(unrounded, 0, 255) - scaled[10:70, 10:80]).max() <= 1.51  # two roundings


def test_rounding_clips_what_overshoots():
    edge = np.zeros((40, 40, 3), np.uint8)
    edge[:, 20:] = 255
    free, rounded = (pixels_of(edge, recipe(interpolation="bicubic", rounded=rounded)) for rounded in (False, True))
    assert free.min() < -1
    assert free.max() > 256
    assert (rounded.min(), rounded.max()) == (0, 255)
    assert (rounded == np.rint(rounded)).all()


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_letterbox(size, rounded):
    """Fitted without distortion, as YOLO's: gray 114 around, the smaller half of what is left over above and to the left."""
    height, width = size
    asked = recipe(size=(64, 96), resize="letterbox", pad=(114.0,), rounded=rounded)
    ratio = min(64 / height, 96 / width)
    scaled = (max(int(np.floor(height * ratio + 0.5)), 1), max(int(np.floor(width * ratio + 0.5)), 1))
    top, left = (64 - scaled[0]) // 2, (96 - scaled[1]) // 2
    pixels = picture(*size)
    if rounded:
        inner = np.asarray(along_x_then_y(Image.fromarray(pixels), scaled[::-1], "bilinear"))
    else:
        planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(pixels, -1, 0)]
        inner = np.stack([np.asarray(along_x_then_y(plane, scaled[::-1], "bilinear")) for plane in planes], axis=-1)
    expected = np.full((64, 96, 3), 114.0)
    expected[top : top + scaled[0], left : left + scaled[1]] = inner
    np.testing.assert_array_equal(pixels_of(pixels, asked), expected.astype(np.float32))
    cornered = np.full((64, 96, 3), 114.0)
    cornered[: scaled[0], : scaled[1]] = inner
    top_left = asked.model_copy(update={"anchor": "top-left"})
    np.testing.assert_array_equal(pixels_of(pixels, top_left), cornered.astype(np.float32))


def test_the_colour_of_the_padding_is_the_pictures():
    """Red, green, blue, whichever order the model has; normalised like a pixel."""
    asked = recipe(resize="letterbox", pad=(10.0, 20.0, 30.0), channel_order="BGR", scale=0.5, mean=(1.0, 2.0, 3.0))
    corner = preprocessed(picture(10, 100), asked)[0, :, 0, 0]
    np.testing.assert_allclose(corner, [30 * 0.5 - 1, 20 * 0.5 - 2, 10 * 0.5 - 3])
    np.testing.assert_allclose(asked.fill((10.0, 20.0, 30.0)), corner)


def test_a_crop_larger_than_the_picture_is_padded_though_at_a_fraction():
    """Along the axis that needs it; along the other the crop stays at a fraction of a pixel."""
    asked = recipe(size=(50, 200), resize="crop", shorter_side=51, pad=(9.0,))
    found = pixels_of(np.full((30, 60, 3), 200, np.uint8), asked)  # scaled by 1.7 to 51 x 102: padded by 49 on both sides
    assert (found[:, :49] == 9).all()
    assert (found[:, 151:] == 9).all()
    np.testing.assert_allclose(found[:, 49:151], 200, rtol=1e-6)


def test_crop_share_is_timms():
    for side, share, shorter in ((224, 0.875, 256), (224, 0.9, 248), (288, 1.0, 288)):
        assert recipe(size=(side, side), resize="crop", crop_share=share).shorter == shorter


def test_negatives():
    pixels = picture(64, 64)
    np.testing.assert_array_equal(pixels_of(pixels, recipe(invert=True)), 255 - pixels.astype(np.float32))
    np.testing.assert_array_equal(pixels_of(pixels, recipe(invert=True, resize="letterbox", size=(64, 65), pad=(3.0,)))[:, 64], 3)
    np.testing.assert_allclose(pixels_of(pixels, recipe(scale=-1 / 255, mean=(-1.0,) * 3)), 1 - pixels / 255, atol=1e-6)


def test_colour_becomes_gray_as_pillow_makes_it(tmp_path):
    values = np.arange(256, dtype=np.uint8)
    pixels = np.stack(
        [np.repeat(values, 256).reshape(256, 256), np.tile(values, (256, 1)), np.tile(values[::-1], (256, 1))], axis=-1
    )
    asked = recipe(size=(256, 256), channel_order="gray", mean=(0.0,), std=(1.0,), gray=True)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(preprocessed(pixels, asked)[0, 0], expected)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "p.png", asked).tensor[0, 0], expected)
    with pytest.raises(ImageError, match='"gray": true'):
        read_picture(tmp_path / "p.png", asked.model_copy(update={"gray": False}))


def test_pictures_that_would_be_scaled_to_absurd_sizes():
    with pytest.raises(ImageError, match="would be scaled to 2000 x 60000000"):
        preprocessed(np.zeros((2, 60000, 3), np.uint8), recipe(resize="crop", shorter_side=2000, crop_at="floor"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0.0}, "scale is 0"),
        ({"resize": "crop"}, "shorter_side"),
        ({"resize": "crop", "shorter_side": 9, "crop_share": 0.5}, "shorter_side"),
        ({"resize": "crop", "crop_share": 1.5}, "crop_share"),
        ({"resize": "crop", "crop_share": 1e-9}, "scales the shorter side"),
        ({"resized": (3, 3), "resize": "letterbox"}, "resized goes with"),
        ({"anchor": "top-left"}, "anchor goes with"),
        ({"rounded": True, "resize": "crop", "shorter_side": 64}, "whole pixels"),
        ({"pad": (1.0, 2.0)}, "pad has 2 numbers"),
        ({"pad": (300.0,)}, "pad"),
        ({"gray": True}, "gray goes with"),
        ({"bits": 8}, "bits"),
        ({"window": (1.0, 0.0)}, "window"),
        ({"mean": (), "std": (), "channel_order": "stored"}, "mean and std need some"),
    ],
)
def test_recipes_that_contradict_themselves(change, message):
    with pytest.raises(ValidationError, match=message):
        recipe(**change)


def test_fills_of_many_channels():
    asked = recipe(channel_order="stored", mean=(0.0,) * 5, std=(1.0,) * 5)
    assert asked.fill((1.0, 2.0, 3.0, 4.0, 5.0)) == (1.0, 2.0, 3.0, 4.0, 5.0)
    with pytest.raises(UsageError, match="expected 1 or 5"):
        asked.fill((1.0, 2.0, 3.0))
