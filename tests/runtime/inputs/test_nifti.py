"""Slices of NIfTI volumes: which numbers, shown how."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs.formats import format_of
from kcompiler.runtime.inputs.selection import Selection, Wanted

nibabel = pytest.importorskip("nibabel")
VOLUME = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 7)).astype(np.int16)
WINDOW = (0.0, 2000.0)


def saved(tmp_path, values=VOLUME, name="v.nii", kind=None, **header):
    image = (kind or nibabel.Nifti1Image)(values, np.eye(4))
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, tmp_path / name)
    return tmp_path / name


def read(path, window=WINDOW, wanted_window=None, **selection):
    assert format_of(path).name == "NIfTI"
    (plane,) = format_of(path).read(path, Wanted(Selection(window, **selection), window=wanted_window))
    return plane


def shown(values):
    return (values / 2000 + 0.5) * 255


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_slices(tmp_path, name, kind):
    path = saved(tmp_path, name=name, kind=kind)
    np.testing.assert_allclose(read(path), shown(VOLUME[:, :, 3]), rtol=1e-5, atol=1e-4)
    for axis in range(3):
        for index in (0, 2, VOLUME.shape[axis] - 1):
            found = read(path, axis=axis, index=index)
            np.testing.assert_allclose(found, shown(VOLUME.take(index, axis)), rtol=1e-5, atol=1e-4)
    with pytest.raises(ImageError, match="--slice is 7"):
        read(path, index=7)


def test_stored_numbers_are_scaled(tmp_path):
    image = nibabel.Nifti1Image(VOLUME, np.eye(4))
    image.header.set_slope_inter(0.5, -100)
    nibabel.save(image, tmp_path / "s.nii")
    values = np.asarray(nibabel.load(tmp_path / "s.nii").dataobj)
    np.testing.assert_allclose(read(tmp_path / "s.nii"), np.clip(shown(values[:, :, 3]), 0, 255), rtol=1e-5, atol=1e-4)


def test_a_range_or_a_window(tmp_path):
    with pytest.raises(
        ImageError, match=r"no range of values to show \(cal_min, cal_max\); give --window CENTRE,WIDTH \(the values are"
    ):
        read(saved(tmp_path), None)
    np.testing.assert_allclose(read(saved(tmp_path), None, WINDOW), shown(VOLUME[:, :, 3]), rtol=1e-5, atol=1e-4)
    path = saved(tmp_path, cal_min=-1000, cal_max=1000)
    np.testing.assert_allclose(read(path, None), shown(VOLUME[:, :, 3]), rtol=1e-5, atol=1e-4)


def test_time_is_a_frame(tmp_path):
    path = saved(tmp_path, np.stack([VOLUME, -VOLUME], axis=-1))
    with pytest.raises(ImageError, match="2 frames"):
        read(path)
    np.testing.assert_allclose(read(path, frame=1), shown(-VOLUME[:, :, 3]), rtol=1e-5, atol=1e-4)


def test_what_cannot_be_shown(tmp_path):
    bad = VOLUME.astype(np.float32)
    bad[0, 0, 3] = np.nan
    with pytest.raises(ImageError, match="not finite"):
        read(saved(tmp_path, bad))
    with pytest.raises(UsageError, match="axis is 3"):
        read(saved(tmp_path), axis=3)
    whole = saved(tmp_path).read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:400])
    with pytest.raises(ImageError, match=r"cut\.nii: not a readable"):
        read(tmp_path / "cut.nii")
    bomb = bytearray(whole)
    bomb[42:48] = np.array([1000, 1000, 1000], "<i2").tobytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(bomb)))
    with pytest.raises(ImageError, match="1000 x 1000 x 1000 x 2 bytes"):
        read(tmp_path / "bomb.nii.gz")
    huge = bytearray(whole)
    huge[42:48] = np.array([32767] * 3, "<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(bytes(huge))
    with pytest.raises(ImageError, match="32767 x 32767"):
        read(tmp_path / "huge.nii")


def test_the_window_that_is_named_shows_all(tmp_path):
    with pytest.raises(ImageError) as told:
        read(saved(tmp_path), None)
    window = tuple(float(number) for number in str(told.value).split("--window ")[2].split(" ")[0].split(","))
    shown = read(saved(tmp_path), window)
    assert (shown.min(), shown.max()) == pytest.approx((0, 255), abs=1e-3)
