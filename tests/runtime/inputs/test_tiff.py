"""TIFF by photometric interpretation, depth and channels: the right number for each sample."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.inputs.formats import format_of
from kcompiler.runtime.inputs.selection import Selection, Wanted

GRAY8 = np.array([[0, 1, 100], [200, 254, 255]], np.uint8)
GRAY16 = np.array([[0, 1, 1000], [40000, 65534, 65535]], np.uint16)
GRAY12 = np.array([[0, 1, 1000], [2048, 4094, 4095]], np.uint16)
MAX_SAMPLE_VALUE = 281


def saved(tmp_path, samples, name="p.tif", **options):
    tifffile.imwrite(tmp_path / name, samples, **options)
    return tmp_path / name


def read(path, *, window=None, frame=None, **wanted):
    assert format_of(path).name == "TIFF"
    planes = format_of(path).read(path, Wanted(Selection(window, frame), **wanted))
    return planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("samples", [GRAY8, GRAY16], ids=["8", "16"])
def test_gray(tmp_path, samples, byteorder, compression):
    expected = samples / (np.iinfo(samples.dtype).max / 255)
    options = {"byteorder": byteorder, "compression": compression}
    black = saved(tmp_path, samples, "black.tif", photometric="minisblack", **options)
    np.testing.assert_allclose(read(black), expected, rtol=1e-6)
    white = saved(tmp_path, samples, "white.tif", photometric="miniswhite", **options)
    np.testing.assert_allclose(read(white), 255 - expected, rtol=1e-6, atol=1e-4)


def test_bilevel(tmp_path):
    bits = np.array([[0, 1, 1, 0, 1, 0, 0, 1]] * 2, bool)
    np.testing.assert_array_equal(read(saved(tmp_path, bits, photometric="minisblack")), bits * 255)
    np.testing.assert_array_equal(read(saved(tmp_path, bits, photometric="miniswhite")), (1 - bits) * 255)


def test_lzw_of_sixteen_bits(tmp_path):
    Image.fromarray(GRAY16).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    np.testing.assert_allclose(read(tmp_path / "lzw.tif"), GRAY16 / 257, rtol=1e-6)


def twelve_bits(samples):
    """A TIFF with two samples in three bytes, as TIFF packs 12 bits: high bits first."""
    flat = samples.ravel().astype(int)
    data = bytes(b for first, second in zip(flat[::2], flat[1::2], strict=True)
                 for b in (first >> 4, (first & 15) << 4 | second >> 8, second & 255))  # fmt: skip
    entries = [(256, 3, samples.shape[1]), (257, 3, samples.shape[0]), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8),
               (277, 3, 1), (278, 3, samples.shape[0]), (279, 4, len(data))]  # fmt: skip
    directory = len(entries).to_bytes(2, "little") + b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, value in entries
    )
    data += b"\0" * (len(data) % 2)
    return b"II*\0" + (8 + len(data)).to_bytes(4, "little") + data + directory + bytes(4)


def test_packed_twelve_bits(tmp_path):
    rows = np.array([[0, 1, 1000, 5], [2048, 4094, 4095, 7]], np.uint16)
    (tmp_path / "packed.tif").write_bytes(twelve_bits(rows))
    np.testing.assert_allclose(read(tmp_path / "packed.tif"), rows * (255 / 4095), rtol=1e-6)


def test_declared_largest_value(tmp_path):
    """All ones are a depth; 4000 only is the largest that occurs."""
    declared = saved(tmp_path, GRAY12, "a.tif", extratags=[(MAX_SAMPLE_VALUE, "H", 1, 4095, True)])
    np.testing.assert_allclose(read(declared), GRAY12 * (255 / 4095), rtol=1e-6)
    occurring = saved(tmp_path, GRAY12, "b.tif", extratags=[(MAX_SAMPLE_VALUE, "H", 1, 4000, True)])
    with pytest.raises(ImageError, match='"bits": 12'):
        read(occurring)
    exceeded = saved(tmp_path, GRAY16, "c.tif", extratags=[(MAX_SAMPLE_VALUE, "H", 1, 4095, True)])
    with pytest.raises(ImageError, match="has the value 65535, but its depth is 12 bits"):
        read(exceeded)


@pytest.mark.parametrize(("largest", "bits"), [(1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14)])
def test_sixteen_bits_that_may_be_fewer_are_an_error(tmp_path, largest, bits):
    path = saved(tmp_path, np.array([[0, 7], [5, largest]], np.uint16))
    with pytest.raises(ImageError, match=rf'no value above {largest}: it may hold {bits} bits.*"bits": {bits} \(or "bits": 16'):
        read(path)
    np.testing.assert_allclose(read(path, bits=bits)[1, 1], largest / ((1 << bits) - 1) * 255, rtol=1e-6)
    np.testing.assert_allclose(read(path, bits=16)[1, 1], largest / 257, rtol=1e-6)


def test_sixteen_bits_that_are_clearly_so(tmp_path):
    assert read(saved(tmp_path, np.array([[0, 16384]], np.uint16)))[0, 1] == pytest.approx(16384 / 257)
    assert read(saved(tmp_path, np.zeros((2, 2), np.uint16), "black.tif")).max() == 0


def test_white_is_zero_of_twelve_bits(tmp_path):
    path = saved(tmp_path, GRAY12, photometric="miniswhite")
    np.testing.assert_allclose(read(path, bits=12), 255 - GRAY12 * (255 / 4095), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_colours(tmp_path, planar, kind):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (5, 4, 3), kind, endpoint=True)
    pixels[0, 0] = np.iinfo(kind).max
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    path = saved(tmp_path, stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_allclose(read(path), pixels / (np.iinfo(kind).max / 255), rtol=1e-6)


def test_palettes_and_jpeg(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).quantize(16)
    image.save(tmp_path / "palette.tif")
    np.testing.assert_array_equal(read(tmp_path / "palette.tif"), np.asarray(image.convert("RGB")))
    smooth = Image.fromarray(np.full((16, 16, 3), (200, 100, 50), np.uint8))
    smooth.save(tmp_path / "jpeg.tif", compression="jpeg")
    np.testing.assert_allclose(read(tmp_path / "jpeg.tif"), np.asarray(smooth), atol=3)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_alpha(tmp_path, kind):
    largest = np.iinfo(kind).max
    pixels = np.full((4, 4, 4), largest, kind)
    pixels[..., :3] //= 2
    path = saved(tmp_path, pixels, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_allclose(read(path), pixels[..., :3] / (largest / 255), rtol=1e-6)
    pixels[1, 1, 3] -= 1
    with pytest.raises(ImageError, match="transparent"):
        read(saved(tmp_path, pixels, "t.tif", photometric="rgb", extrasamples=["unassalpha"]))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_more_channels_where_the_model_takes_them(tmp_path, planar, kind):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (6, 7, 5), kind, endpoint=True)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    path = saved(tmp_path, stored, photometric="minisblack", planarconfig=planar, extrasamples=["unspecified"] * 4)
    np.testing.assert_allclose(read(path, channels=5), pixels / (np.iinfo(kind).max / 255), rtol=1e-6)
    with pytest.raises(ImageError, match="has 5 channels, the model takes 3"):
        read(path)


def test_a_fourth_band_is_not_dropped(tmp_path):
    bands = np.random.default_rng(0).integers(0, 256, (6, 7, 4), np.uint8)
    path = saved(tmp_path, bands, photometric="rgb", extrasamples=["unspecified"])
    with pytest.raises(ImageError, match="has 4 channels"):
        read(path)
    np.testing.assert_array_equal(read(path, channels=4), bands)


def test_signed_and_floating_point_samples_need_a_window(tmp_path):
    for values in (np.array([[-1000, 40], [240, 3000]], np.int16), np.array([[-160.0, 40], [140, 240]], np.float32)):
        path = saved(tmp_path, values, photometric="minisblack")
        with pytest.raises(ImageError, match="--window"):
            read(path)
        np.testing.assert_allclose(read(path, window=(40.0, 400.0)), np.clip((values - 40.0) / 400 + 0.5, 0, 1) * 255)
    with pytest.raises(ImageError, match="not finite"):
        read(saved(tmp_path, np.array([[np.nan, 1]], np.float32), photometric="minisblack"), window=(0.0, 1.0))
    with pytest.raises(ImageError, match="leave out --window"):
        read(saved(tmp_path, GRAY8, photometric="minisblack"), window=(0.0, 1.0))


TURNED = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.rot90(np.fliplr(a)),
    6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(np.fliplr(a), -1), 8: np.rot90,
}  # fmt: skip
"""By EXIF's table: what turns the stored picture upright."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_orientation(tmp_path, orientation, compression):
    """Of all layouts, whichever library decodes and turns them."""
    colour = np.random.default_rng(0).integers(0, 255, (5, 4, 3), np.uint8)
    colour[0, 0] = 255
    opaque = np.concatenate([colour, np.full((5, 4, 1), 255, np.uint8)], axis=-1)
    tags = {"extratags": [(274, "H", 1, orientation, True)], "compression": compression}
    for name, pixels, options in (
        ("rgb", colour, {}),
        ("rgb", opaque, {"extrasamples": ["unassalpha"]}),
        ("minisblack", colour[..., 0], {}),
    ):
        for factor in (1, 257):
            stored = pixels if factor == 1 else pixels.astype(np.uint16) * factor
            path = saved(tmp_path, stored, photometric=name, **tags, **options)
            expected = TURNED[orientation](colour if pixels.ndim == 3 else pixels)
            np.testing.assert_allclose(read(path), expected, rtol=1e-6)


def test_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for page in (GRAY16, 65535 - GRAY16):
            writer.write(page, photometric="minisblack")
    with pytest.raises(ImageError, match="2 frames; choose the one to explain with --frame"):
        read(tmp_path / "pages.tif")
    np.testing.assert_allclose(read(tmp_path / "pages.tif", frame=1), (65535 - GRAY16) / 257, rtol=1e-6)


def test_what_is_not_supported(tmp_path):
    path = saved(tmp_path, np.zeros((4, 4, 4), np.uint16), photometric="separated")
    with pytest.raises(ImageError, match="SEPARATED"):
        read(path)
    (tmp_path / "cut.tif").write_bytes(saved(tmp_path, GRAY16).read_bytes()[:60])
    with pytest.raises(ImageError, match=r"cut\.tif"):
        read(tmp_path / "cut.tif")
    huge = bytearray(twelve_bits(np.zeros((2, 4), np.uint16)))
    for tag in (256, 257):
        at = huge.index(tag.to_bytes(2, "little") + b"\3\0", 20)
        huge[at + 2 : at + 12] = b"\4\0" + (1).to_bytes(4, "little") + (1 << 30).to_bytes(4, "little")
    (tmp_path / "huge.tif").write_bytes(bytes(huge))
    with pytest.raises(ImageError, match="1073741824 x 1073741824"):
        read(tmp_path / "huge.tif")
