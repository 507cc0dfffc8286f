"""DICOM pictures are shown as the standard says: numbers computed by hand, and pydicom's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs import optional
from kcompiler.runtime.inputs.dicom import read_dicom
from kcompiler.runtime.inputs.formats import format_of
from kcompiler.runtime.inputs.selection import Selection, Wanted

pydicom = pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage  # noqa: E402

VALUES = np.array([[0, 1000, 2048], [3000, 4000, 4095]], np.uint16)


def made(tmp_path, stored=VALUES, name="made.dcm", **attributes):
    """A DICOM file of ``stored`` [rows, columns] or [frames, rows, columns]; 12 bits of 16 unless attributes say otherwise."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = SecondaryCaptureImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "1.2.3"
    header.PatientName, header.SamplesPerPixel, header.PhotometricInterpretation = "Doe^Jane", 1, "MONOCHROME2"
    header.Rows, header.Columns = stored.shape[-2:]
    header.BitsAllocated, header.BitsStored, header.HighBit = 8 * stored.itemsize, 12, 11
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    if stored.ndim == 3:
        header.NumberOfFrames = len(stored)
    for key, value in attributes.items():
        setattr(header, key, value)
    header.PixelData = stored.tobytes()
    header.save_as(tmp_path / name, enforce_file_format=True)
    return tmp_path / name


def read(path, window=None, **selection):
    planes = format_of(path).read(path, Wanted(Selection(window, **selection)))
    return planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)


def test_twelve_bits_of_sixteen(tmp_path):
    np.testing.assert_allclose(read(made(tmp_path)), VALUES * (255 / 4095), rtol=1e-6)


def test_monochrome1_is_inverted(tmp_path):
    path = made(tmp_path, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read(path), 255 - VALUES * (255 / 4095), rtol=1e-6, atol=1e-4)


# PS3.3 C.11.2.1.2 for centre 2048 and width 4096: ((x - 2047.5) / 4095 + 0.5) * 255, from x = 0 to x = 4095
LINEAR = [[0, 1000 / 4095 * 255, 2048 / 4095 * 255], [3000 / 4095 * 255, 4000 / 4095 * 255, 255]]
LINEAR_EXACT = [[0, 1000 / 4096 * 255, 127.5], [3000 / 4096 * 255, 4000 / 4096 * 255, 4095 / 4096 * 255]]
SIGMOID = 255 / (1 + np.exp(-4 * (VALUES - 2048.0) / 4096))


@pytest.mark.parametrize(
    ("function", "expected"), [(None, LINEAR), ("LINEAR", LINEAR), ("LINEAR_EXACT", LINEAR_EXACT), ("SIGMOID", SIGMOID)]
)
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("given", [False, True], ids=["of the file", "of the caller"])
def test_windows(tmp_path, function, expected, inverted, given):
    window = {} if given else {"WindowCenter": 2048, "WindowWidth": 4096}
    function = {"VOILUTFunction": function} if function else {}
    photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
    path = made(tmp_path, PhotometricInterpretation=photometric, **window, **function)
    found = read(path, (2048.0, 4096.0) if given else None)
    np.testing.assert_allclose(255 - found if inverted else found, expected, rtol=1e-5, atol=1e-4)


def test_what_lies_outside_a_window_is_black_or_white(tmp_path):
    assert read(made(tmp_path), (2000.0, 1.0)).tolist() == [[0, 0, 255], [255, 255, 255]]
    assert read(made(tmp_path), (2049.0, 3.0)).tolist() == [[0, 0, 63.75], [255, 255, 255]]  # ((2048 - 2048.5) / 2 + 0.5) * 255


def test_the_first_of_several_windows(tmp_path):
    path = made(tmp_path, WindowCenter=[2048, 40], WindowWidth=[4096, 400])
    np.testing.assert_allclose(read(path), LINEAR, rtol=1e-5)


def test_signed_values_are_rescaled_before_the_window(tmp_path):
    """Hounsfield units of a soft-tissue window: slope 2, intercept -1000, so that -100 becomes -1200 and 520 becomes 40."""
    stored = np.array([[-100, 520, 619], [419, 420, 2000]], np.int16)
    path = made(tmp_path, stored, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=40, WindowWidth=400)
    expected = np.clip((2.0 * stored - 1000 - 39.5) / 399 + 0.5, 0, 1) * 255
    assert expected[0, 0] == 0
    assert expected[0, 2] == pytest.approx((198.5 / 399 + 0.5) * 255)
    np.testing.assert_allclose(read(path), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_tables_of_values_of_interest(tmp_path, bits, kind):
    """A VOI LUT of three entries for the values 1000 to 1002; what lies outside takes the first or the last."""
    entries = np.array([0, 1, 2]) * (127 if bits == 8 else 32000)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [3, 1000, bits], entries.tolist() if bits == 16 else entries.astype(np.uint16).tolist()
    table["LUTDescriptor"].VR = "US"
    table["LUTData"].VR = "US"
    stored = np.array([[0, 1000, 1001], [1002, 1003, 4095]], np.uint16)
    path = made(tmp_path, stored, VOILUTSequence=[table], WindowCenter=1, WindowWidth=1)
    largest = (1 << bits) - 1
    expected = entries[[[0, 0, 1], [2, 2, 2]]] / largest * 255
    np.testing.assert_allclose(read(path), expected, rtol=1e-5)


def test_values_without_a_range_need_a_window(tmp_path):
    for path in (
        made(tmp_path, VALUES.astype(np.int16), "signed.dcm"),
        made(tmp_path, name="rescaled.dcm", RescaleSlope=1, RescaleIntercept=-1024),
        get_testdata_file("CT_small.dcm"),
    ):
        with pytest.raises(ImageError, match="--window"):
            read(Path(path))
        assert 0 < read(Path(path), (40.0, 400.0)).mean() < 255
    neutral = made(tmp_path, name="neutral.dcm", RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_allclose(read(neutral), VALUES * (255 / 4095), rtol=1e-6)


def test_bits_above_those_stored_are_no_part_of_the_value(tmp_path):
    """Where old files keep overlays."""
    path = made(tmp_path, VALUES | np.uint16(1 << 13), BitsStored=12, HighBit=11)
    np.testing.assert_allclose(read(path), VALUES * (255 / 4095), rtol=1e-6)


def test_the_recipes_window_and_the_callers(tmp_path):
    path = made(tmp_path, WindowCenter=100, WindowWidth=1, VOILUTFunction="LINEAR_EXACT")
    by_recipe = read_dicom(path, Wanted(window=(2048.0, 4096.0)))[0]
    np.testing.assert_allclose(by_recipe, LINEAR_EXACT, rtol=1e-5)
    by_caller = read_dicom(path, Wanted(Selection((2048.0, 8192.0)), window=(2048.0, 4096.0)))[0]
    np.testing.assert_allclose(by_caller, np.array(LINEAR_EXACT) / 2 + 63.75, rtol=1e-5)


def test_colours(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    path = made(tmp_path, pixels, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, Rows=2, Columns=3,
                BitsStored=8, HighBit=7, NumberOfFrames=1)  # fmt: skip
    np.testing.assert_array_equal(read(path), pixels)
    with pytest.raises(ImageError, match="window"):
        read(path, (1.0, 2.0))


def test_ybr_becomes_rgb(tmp_path):
    red, gray = (76, 85, 255), (128, 128, 128)  # full range, ITU-R 601: 255 red is Y 76, Cb 85, Cr 255
    pixels = np.array([[red, gray]], np.uint8)
    path = made(tmp_path, pixels, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0, Rows=1,
                Columns=2, BitsStored=8, HighBit=7, NumberOfFrames=1)  # fmt: skip
    np.testing.assert_allclose(read(path), [[(254, 0, 0), (128, 128, 128)]], atol=1.5)


def test_frames(tmp_path):
    stored = np.stack([VALUES, VALUES[::-1]])
    path = made(tmp_path, stored)
    with pytest.raises(ImageError, match="2 frames; choose the one to explain with --frame 0 to 1"):
        read(path)
    np.testing.assert_allclose(read(path, frame=1), VALUES[::-1] * (255 / 4095), rtol=1e-6)
    with pytest.raises(ImageError, match="--frame is 2"):
        read(path, frame=2)
    with pytest.raises(ImageError, match="no volume"):
        read(path, axis=1)


def file(name):
    return Path(get_testdata_file(name, download=False))


def test_pydicoms_own_files():
    """Pixels by pydicom's own functions, shown by the formula of the standard."""
    for name in (
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
    ):
        header = pydicom.dcmread(file(name))
        values = header.pixel_array.astype(float)
        expected = np.clip((values - 599.5) / 1599 + 0.5, 0, 1) * 255
        np.testing.assert_allclose(read(file(name)), expected, atol=1e-4, err_msg=name)
    header = pydicom.dcmread(file("examples_overlay.dcm"))
    expected = np.clip((header.pixel_array - 449.5) / 789 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(read(file("examples_overlay.dcm")), expected, atol=1e-4)
    assert read(file("liver_1frame.dcm")).min() == 0
    assert np.unique(read(file("liver_1frame.dcm"))).tolist() == [0, 255]


@pytest.mark.parametrize("name", ["ExplVR_BigEnd", "SC_rgb_rle", "examples_rgb_color", "SC_rgb_small_odd"])
def test_pydicoms_colours(name):
    np.testing.assert_array_equal(read(file(f"{name}.dcm")), pydicom.dcmread(file(f"{name}.dcm")).pixel_array)


def test_deep_colours_and_palettes():
    found = read(file("SC_rgb_rle_16bit.dcm"))
    np.testing.assert_allclose(found, pydicom.dcmread(file("SC_rgb_rle_16bit.dcm")).pixel_array / 257, rtol=1e-6)
    assert read(file("SC_rgb_rle_2frame.dcm"), frame=1).shape == (100, 100, 3)
    header = pydicom.dcmread(file("examples_palette.dcm"))
    expected = pydicom.pixels.apply_color_lut(header.pixel_array, header)
    np.testing.assert_allclose(read(file("examples_palette.dcm")), expected / (np.iinfo(expected.dtype).max / 255), rtol=1e-6)
    ybr = read(file("SC_rgb_dcmtk_+eb+cy+np.dcm"))  # JPEG in YCbCr; the same picture as RGB
    assert np.abs(ybr - read(file("SC_rgb_dcmtk_+eb+cr.dcm"))).mean() < 8


def test_what_is_no_picture(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="no Rows"):
        read(file("rtplan.dcm") if get_testdata_file("rtplan.dcm", download=False) else made(tmp_path))
    (tmp_path / "text.dcm").write_text("not DICOM at all")
    with pytest.raises(ImageError, match=r"text\.dcm"):
        read(tmp_path / "text.dcm")
    huge = made(tmp_path, name="huge.dcm")
    header = pydicom.dcmread(huge)
    header.Rows, header.Columns = 65535, 65535
    header.save_as(huge)
    with pytest.raises(ImageError, match="65535 x 65535"):
        read(huge)
    with pytest.raises(UsageError, match="width above 0"):
        read(made(tmp_path), (1.0, 0.0))
    cut = made(tmp_path, name="cut.dcm")
    cut.write_bytes(cut.read_bytes()[:-4])
    with pytest.raises(ImageError, match=r"cut\.dcm: not a readable"):
        read(cut)


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    def absent(module):
        raise ImportError(module)

    monkeypatch.setattr(optional.importlib, "import_module", absent)
    with pytest.raises(ImageError, match=r"pip install 'kcompiler\[medical\]'"):
        read(made(tmp_path))


def test_a_picture_named_otherwise_is_recognised_by_its_content(tmp_path):
    path = made(tmp_path).rename(tmp_path / "scan.png")
    np.testing.assert_allclose(read(path), VALUES * (255 / 4095), rtol=1e-6)
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(tmp_path / "p.png")
    assert format_of(tmp_path / "p.png").name == "picture"


def test_deflated_files_are_read(tmp_path):
    from tests.fuzz.pictures import DEEP, dicom

    plain, deflated = tmp_path / "plain.dcm", tmp_path / "deflated.dcm"
    plain.write_bytes(dicom())
    deflated.write_bytes(dicom("1.2.840.10008.1.2.1.99"))
    planes = [format_of(path).read(path, Wanted())[0] for path in (plain, deflated)]
    assert planes[0].shape == DEEP.shape
    np.testing.assert_array_equal(planes[0], planes[1])


@pytest.mark.parametrize("length", [0, 7])
def test_boxes_of_no_length_are_refused(tmp_path, length):
    """pydicom looks for the picture behind such a box without end."""
    source = pydicom.dcmread(get_testdata_file("JPEG2000.dcm"))
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + length.to_bytes(4, "big") + b"free" + bytes(64)
    source.PixelData = pydicom.encaps.encapsulate([boxes])
    source.save_as(tmp_path / "loop.dcm")
    with pytest.raises(ImageError, match=rf"loop.dcm: has a JPEG 2000 box of {length} bytes"):
        read(tmp_path / "loop.dcm", (0, 100))
