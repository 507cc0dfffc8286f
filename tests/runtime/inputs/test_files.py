"""Arrays as pixels, and files that must not be read: too large, no files at all, damaged."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs import files
from kcompiler.runtime.inputs.arrays import load_array
from kcompiler.runtime.inputs.formats import format_of
from kcompiler.runtime.inputs.preprocessing import Preprocessing, read_picture
from kcompiler.runtime.inputs.selection import Selection, Wanted

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
BANDS = Preprocessing(
    size=(6, 8), resize="stretch", scale=1 / 255, mean=(0.0,) * 5, std=(1.0, 2.0, 4.0, 8.0, 16.0), channel_order="stored"
)


def saved(tmp_path, array, name="a.npy"):
    with (tmp_path / name).open("wb") as stream:
        (np.savez if name.lower().endswith("z") else np.save)(stream, array)
    return tmp_path / name


def read(path, window=None, **wanted):
    return np.stack(format_of(path).read(path, Wanted(Selection(window), **wanted)), axis=-1)


@pytest.mark.parametrize("name", ["a.npy", "A.NPY", "a.npz", "A.NPZ", "misnamed.png"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_pixels(tmp_path, name, order):
    path = saved(tmp_path, np.array(PIXELS, order=order), name)
    np.testing.assert_array_equal(read(path), PIXELS)


def test_arrays_of_other_types(tmp_path):
    deep = PIXELS.astype(np.uint16) * 257
    deep[0, 0] = 65535
    np.testing.assert_allclose(read(saved(tmp_path, deep.astype(">u2"))), deep / 257, rtol=1e-6)
    with pytest.raises(ImageError, match='"bits": 12'):
        read(saved(tmp_path, deep >> 4))
    np.testing.assert_allclose(read(saved(tmp_path, deep >> 4), bits=12), (deep >> 4) * (255 / 4095), rtol=1e-6)
    values = np.array([[-160.0, 40], [140, 240]])
    with pytest.raises(ImageError, match="--window"):
        read(saved(tmp_path, values))
    np.testing.assert_allclose(read(saved(tmp_path, values), (40.0, 400.0))[..., 0], [[0, 127.5], [191.25, 255]])


def test_more_than_three_channels(tmp_path):
    bands = np.random.default_rng(1).integers(0, 256, (6, 8, 5), np.uint8)
    picture = read_picture(saved(tmp_path, bands), BANDS)
    expected = np.moveaxis(bands / 255 / [1, 2, 4, 8, 16], -1, 0)
    np.testing.assert_allclose(picture.tensor[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(picture.pixels[..., 0], np.rint(bands.mean(axis=2)))
    with pytest.raises(ImageError, match="expected pixels"):
        read_picture(saved(tmp_path, bands[..., :4]), BANDS)
    with pytest.raises(ImageError, match="has 3 channels, the model takes 5"):
        read_picture(saved(tmp_path, PIXELS), BANDS)
    with pytest.raises(ImageError, match="has 1 channels, the model takes 5"):
        read_picture(saved(tmp_path, PIXELS[..., 0]), BANDS)


def test_arrays_that_are_no_pixels(tmp_path):
    with pytest.raises(ImageError, match="expected pixels"):
        read(saved(tmp_path, PIXELS[None]))
    with pytest.raises(ImageError, match="expected numbers"):
        read(saved(tmp_path, np.zeros((2, 2), complex)))
    np.savez(tmp_path / "two.npz", a=PIXELS, b=PIXELS)
    with pytest.raises(ImageError, match=r"has 2 arrays \(a, b\)"):
        read(tmp_path / "two.npz")
    with (tmp_path / "objects.npy").open("wb") as stream:
        np.save(stream, np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(ImageError, match="expected numbers"):
        read(tmp_path / "objects.npy")
    cut = saved(tmp_path, PIXELS)
    cut.write_bytes(cut.read_bytes()[:-5])
    with pytest.raises(ImageError, match="ends after"):
        read(cut)


@pytest.mark.parametrize("archive", [False, True])
def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path, archive):
    content = saved(tmp_path, np.zeros((2, 2), np.uint8)).read_bytes()
    absurd = content.replace(b"(2, 2)", b"(200000, 200000)").replace(b" " * 10 + b"\n", b"\n")
    path = tmp_path / "absurd.npy"
    path.write_bytes(absurd)
    if archive:
        path = tmp_path / "absurd.npz"
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr("absurd.npy", absurd)
    with pytest.raises(ImageError, match="declares 200000 x 200000 numbers"):
        load_array(path)


def test_bombs_are_refused(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((100, 100), np.uint8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="decompression bomb"):
        read(tmp_path / "bomb.png")
    assert files.LARGEST == 89478485


def test_pipes_folders_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, what in ((tmp_path / "pipe.png", "pipe or a device"), (tmp_path, "folder"), ("/dev/zero", "pipe or a device")):
        path = tmp_path / path
        with pytest.raises(ImageError, match=what):
            format_of(path)
        with pytest.raises(ImageError, match=what):
            load_array(path)
        with pytest.raises(UsageError, match=what):
            Preprocessing.read(path)


def test_frames_of_pictures(tmp_path):
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    frames[0].save(tmp_path / "f.png", save_all=True, append_images=frames[1:])
    planes = format_of(tmp_path / "f.png").read(tmp_path / "f.png", Wanted(Selection(frame=1)))
    np.testing.assert_array_equal(np.stack(planes, axis=-1), PIXELS[::-1])


@pytest.mark.parametrize("largest", [65535, 4095])
def test_deep_netpbm_declares_its_depth(tmp_path, largest):
    samples = np.array([[0, 1000, largest]], ">u2")
    (tmp_path / "deep.pgm").write_bytes(f"P5 3 1 {largest}\n".encode() + samples.tobytes())
    np.testing.assert_allclose(read(tmp_path / "deep.pgm")[..., 0], samples * (255 / largest), atol=0.003)


def test_deep_png(tmp_path):
    deep = np.array([[0, 1000, 4095]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with pytest.raises(ImageError, match='"bits": 12'):
        read(tmp_path / "deep.png")
    np.testing.assert_allclose(read(tmp_path / "deep.png", bits=12)[..., 0], deep * (255 / 4095), rtol=1e-6)
    np.testing.assert_allclose(read(tmp_path / "deep.png", (2047.5, 4095.0))[..., 0], deep * (255 / 4095), rtol=1e-6)
