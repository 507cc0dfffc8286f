"""Pictures become model inputs by the recipe; unclear pictures are refused."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs.preprocessing import Preprocessing, read_picture

RECIPE = Preprocessing(
    size=(6, 8), resize="stretch", scale=1 / 255, mean=(0.5, 0.25, 0.125), std=(0.5, 0.25, 2.0), channel_order="RGB"
)
GRAY = Preprocessing(size=(6, 8), resize="stretch", scale=1.0, mean=(0.0,), std=(1.0,), channel_order="gray")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(tmp_path, image: Image.Image, name: str = "picture.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_normalisation(tmp_path):
    picture = read_picture(saved(tmp_path, Image.fromarray(PIXELS)), RECIPE)
    expected = (PIXELS / 255 - [0.5, 0.25, 0.125]) / [0.5, 0.25, 2.0]
    assert picture.tensor.shape == (1, 3, 6, 8)
    assert picture.tensor.dtype == np.float32
    np.testing.assert_allclose(picture.tensor[0].transpose(1, 2, 0), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(picture.pixels, PIXELS)


def test_bgr_swaps_channels_before_the_mean(tmp_path):
    recipe = RECIPE.model_copy(update={"channel_order": "BGR"})
    picture = read_picture(saved(tmp_path, Image.fromarray(PIXELS)), recipe)
    expected = (PIXELS[..., ::-1] / 255 - [0.5, 0.25, 0.125]) / [0.5, 0.25, 2.0]
    np.testing.assert_allclose(picture.tensor[0].transpose(1, 2, 0), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(picture.pixels, PIXELS)


def test_fill_in_pixel_values():
    assert RECIPE.fill((255.0, 0.0, 0.0)) == pytest.approx((1.0, -1.0, -0.0625))
    assert RECIPE.model_copy(update={"channel_order": "BGR"}).fill((255.0, 0.0, 0.0)) == pytest.approx((-1.0, -1.0, 0.4375))
    assert RECIPE.fill((127.5,)) == pytest.approx((0.0, 1.0, 0.1875))
    with pytest.raises(UsageError, match="fill has 2 numbers"):
        RECIPE.fill((1.0, 2.0))


def test_resize_is_pillows_antialiased_filter(tmp_path):
    large = np.random.default_rng(1).integers(0, 256, (60, 50), dtype=np.uint8)
    picture = read_picture(saved(tmp_path, Image.fromarray(large)), GRAY)
    expected = np.asarray(Image.fromarray(large).resize((8, 6), Image.Resampling.BILINEAR))
    assert np.abs(picture.tensor[0, 0] - expected).max() <= 1.0  # Pillow rounds 8-bit pictures after each of its two passes


def test_crop_takes_the_middle(tmp_path):
    large = np.zeros((20, 40), np.uint8)
    large[:, 10:30] = 200
    recipe = GRAY.model_copy(update={"resize": "crop", "shorter_side": 10, "size": (10, 10)})
    picture = read_picture(saved(tmp_path, Image.fromarray(large)), recipe)
    assert picture.tensor.shape == (1, 1, 10, 10)
    assert picture.tensor[0, 0, 5].tolist() == pytest.approx([200.0] * 10, abs=25)


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to see it upright"
    path = saved(tmp_path, Image.fromarray(np.rot90(PIXELS)), exif=exif)
    np.testing.assert_array_equal(read_picture(path, RECIPE).pixels, PIXELS)


def test_gray_becomes_three_equal_channels(tmp_path):
    picture = read_picture(saved(tmp_path, Image.fromarray(PIXELS[..., 0])), RECIPE)
    np.testing.assert_array_equal(picture.pixels, np.repeat(PIXELS[..., :1], 3, axis=-1))


def test_colour_for_a_gray_model_is_refused_unless_it_is_gray(tmp_path):
    with pytest.raises(ImageError, match="takes gray"):
        read_picture(saved(tmp_path, Image.fromarray(PIXELS)), GRAY)
    equal = np.repeat(PIXELS[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(read_picture(saved(tmp_path, Image.fromarray(equal)), GRAY).tensor[0, 0], equal[..., 0])


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path):
    alpha = np.full((6, 8, 1), 255, np.uint8)
    picture = read_picture(saved(tmp_path, Image.fromarray(np.concatenate([PIXELS, alpha], -1))), RECIPE)
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    alpha[2, 3] = 254
    with pytest.raises(ImageError, match="transparent"):
        read_picture(saved(tmp_path, Image.fromarray(np.concatenate([PIXELS, alpha], -1))), RECIPE)


def test_sixteen_bit_gray_keeps_its_depth(tmp_path):
    deep = np.random.default_rng(2).integers(0, 65536, (6, 8), dtype=np.uint16)
    picture = read_picture(saved(tmp_path, Image.fromarray(deep)), GRAY)
    np.testing.assert_allclose(picture.tensor[0, 0], deep / 257, rtol=1e-6)


def test_sixteen_bits_of_colour_are_refused(tmp_path):
    """Pillow would cut them to 8 bits in silence."""
    deep = np.random.default_rng(2).integers(0, 65536, (6, 8, 4), dtype=np.uint16)
    for channels, kind in ((3, 2), (4, 6)):
        (tmp_path / "deep.png").write_bytes(deep_png(deep[..., :channels], kind))
        with pytest.raises(ImageError, match="16 bits a channel"):
            read_picture(tmp_path / "deep.png", RECIPE)
    (tmp_path / "deep.ppm").write_bytes(b"P6\n# sixteen bits\n8 6\n65535\n" + deep[..., :3].astype(">u2").tobytes())
    with pytest.raises(ImageError, match="16 bits a channel"):
        read_picture(tmp_path / "deep.ppm", RECIPE)


def deep_png(pixels, kind):
    """A PNG of 16 bits a channel, which Pillow does not write (PNG specification, section 11)."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width", [56, 720])
@pytest.mark.parametrize("suffix", ["bmp", "ppm", "png", "tif"])
def test_eight_bits_are_read_whatever_the_width(tmp_path, width, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (6, width, 3), dtype=np.uint8)
    recipe = RECIPE.model_copy(update={"size": (6, width)})
    picture = read_picture(saved(tmp_path, Image.fromarray(pixels), f"p.{suffix}"), recipe)
    np.testing.assert_array_equal(picture.pixels, pixels)


def test_transparent_colour_is_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(PIXELS), transparency=tuple(PIXELS[2, 3].tolist()))
    with pytest.raises(ImageError, match="transparent"):
        read_picture(path, RECIPE)


def test_long_thin_picture_is_cropped_without_scaling_it_whole(tmp_path):
    recipe = GRAY.model_copy(update={"resize": "crop", "shorter_side": 2000, "size": (10, 10)})
    path = saved(tmp_path, Image.fromarray(np.full((2, 60000), 7, np.uint8)))
    assert read_picture(path, recipe).tensor.max() == 7


def test_palette_is_looked_up(tmp_path):
    image = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(read_picture(saved(tmp_path, image), RECIPE).pixels, np.asarray(image.convert("RGB")))


def test_unclear_pictures_are_refused(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_picture(tmp_path / "absent.png", RECIPE)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageError, match="not a readable picture"):
        read_picture(tmp_path / "text.png", RECIPE)
    whole = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "cut.png")
    whole.write_bytes(whole.read_bytes()[:500])
    with pytest.raises(ImageError, match="not a readable picture"):
        read_picture(whole, RECIPE)
    with pytest.raises(ImageError, match="CMYK"):
        read_picture(saved(tmp_path, Image.fromarray(PIXELS).convert("CMYK"), "p.tif"), RECIPE)
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    with pytest.raises(ImageError, match="2 frames"):
        read_picture(saved(tmp_path, frames[0], "f.tif", save_all=True, append_images=frames[1:]), RECIPE)


GOOD = {"size": [6, 8], "resize": "stretch", "scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1], "channel_order": "RGB"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.0]}, "mean and std need 3"),
        ({"std": [1, 0, 1]}, "std"),
        ({"channel_order": "CMYK"}, "channel_order"),
        ({"resize": "crop"}, "shorter_side"),
        ({"shorter_side": 3}, "shorter_side"),
        ({"size": [0, 8]}, "size"),
        ({"scale": float("nan")}, "scale"),
        ({"colour": 1}, "colour"),
        ({"scale": None}, "scale"),
        ({"mean": [float("nan"), 0, 0]}, "mean"),
        ({"std": [float("inf"), 1, 1]}, "std"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, change, message):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(UsageError, match=message) as error:
        Preprocessing.read(path)
    assert str(path) in str(error.value)


def test_recipe_that_is_no_json(tmp_path):
    (tmp_path / "recipe.json").write_text("mean: 3")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        Preprocessing.read(tmp_path / "recipe.json")
    with pytest.raises(UsageError, match="no such file"):
        Preprocessing.read(tmp_path / "absent.json")


def test_a_single_number_stands_for_all(tmp_path):
    def read(recipe):
        (tmp_path / "recipe.json").write_text(json.dumps(recipe))
        return Preprocessing.read(tmp_path / "recipe.json")

    short = {"size": 8, "resize": "stretch", "resized": 9, "scale": 1, "mean": 0.5, "std": 2, "pad": 255, "channel_order": "BGR"}
    long = {**short, "size": [8, 8], "resized": [9, 9], "mean": [0.5] * 3, "std": [2] * 3, "pad": [255]}
    assert read(short) == read(long)
    for name, value in (("size", "8"), ("size", True), ("mean", None), ("pad", 256)):
        with pytest.raises(UsageError, match=name):
            read({**short, name: value})
