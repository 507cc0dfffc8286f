"""Maps in the coordinates of medical pictures: which number stands at which voxel, and where that lies in the patient."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace

import numpy as np
import pytest

from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.inputs.selection import Selection
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.as_dicom import parametric_map_of, secondary_capture_of
from kcompiler.runtime.maps.as_nifti import nifti_of
from kcompiler.runtime.maps.heatmap import HeatMap

nibabel, pydicom = pytest.importorskip("nibabel"), pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
from pydicom.data import get_testdata_file  # noqa: E402

AFFINE = np.array([[0, -1.5, 0.1, 10], [2.0, 0, 0, -5], [0, 0.2, 3.0, 7], [0, 0, 0, 1]])
RIGID = np.array([[0, -1.5, 0, 10], [2.0, 0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
SHAPE = (12, 16, 9)


def heat_map(image: tuple[int, int]) -> HeatMap:
    """Of patches of 2 x 2 pixels that reach all of the image but its last two rows; the score falls by 10 y + x."""
    ys, xs = np.arange(image[0] - 3), np.arange(image[1] - 1)
    scores = (1000 - 10 * ys[:, None] - xs).astype(np.float32)
    return HeatMap(
        scores=scores, unoccluded=1000.0, target=1, label="läsion", ys=ys, xs=xs, patch=(2, 2), image=image, seconds=1.0,
        sampled=np.ones(scores.shape, np.bool_), score="logit",
    )  # fmt: skip


def volume(tmp_path, *, sform=AFFINE, qform=RIGID, shape=SHAPE, kind=None):
    image = (kind or nibabel.Nifti1Image)(np.zeros(shape, np.int16), None)
    image.header.set_xyzt_units("mm", "sec")
    for name, affine, code in (("qform", qform, 1), ("sform", sform, 4)):
        if affine is not None:
            getattr(image, f"set_{name}")(affine, code)
    nibabel.save(image, tmp_path / "v.nii.gz")
    return tmp_path / "v.nii.gz"


def read(content: bytes, kind=None):
    return (kind or nibabel.Nifti1Image).from_bytes(gzip.decompress(content))


@pytest.mark.parametrize(("axis", "index"), [(0, 3), (1, 15), (2, 0), (None, None)])
@pytest.mark.parametrize("forms", [{}, {"sform": None}, {"qform": None}, {"sform": None, "qform": None}])
def test_a_slice_keeps_its_place_in_the_scanner(tmp_path, axis, index, forms):
    path = volume(tmp_path, **forms)
    across, at = (2 if axis is None else axis), (SHAPE[2] // 2 if index is None else index)
    plane = tuple(size for number, size in enumerate(SHAPE) if number != across)
    result = read(nifti_of(heat_map(plane), path, Selection(axis=axis, index=index), View.whole(plane)))
    source = nibabel.load(path)
    assert result.shape == tuple(1 if number == across else size for number, size in enumerate(SHAPE))
    corner, far = np.zeros(3), np.array(SHAPE) - 1
    corner[across] = far[across] = at
    for form in ("sform", "qform"):
        (told, code), (expected, expected_code) = (getattr(one, f"get_{form}")(coded=True) for one in (result, source))
        assert code == expected_code
        if told is not None:
            for voxel in (corner, far):
                moved = voxel.copy()
                moved[across] = 0
                np.testing.assert_allclose(told @ [*moved, 1], expected @ [*voxel, 1], atol=1e-4)
    assert result.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(result.header.get_zooms(), source.header.get_zooms(), rtol=1e-6)


def test_a_voxel_has_its_own_drop_and_none_where_nothing_was_covered(tmp_path):
    values = read(nifti_of(heat_map((12, 16)), volume(tmp_path), Selection(), View.whole((12, 16)))).get_fdata()[:, :, 0]
    expected = 10 * np.clip(np.arange(12) - 0.5, 0, None)[:, None] + np.clip(np.arange(16) - 0.5, 0, 14)
    np.testing.assert_allclose(values[:9], expected[:9], atol=1e-3)
    assert np.isfinite(values[:10]).all()
    assert np.isnan(values[10:]).all()


def test_what_the_model_did_not_see_has_no_number(tmp_path):
    view = View((12, 16), (4, 8), (2.0, 1.0), (2.0, 4.0))  # rows 2 to 10 and columns 4 to 12 of the slice
    values = read(nifti_of(heat_map((4, 8)), volume(tmp_path), Selection(), view)).get_fdata()[:, :, 0]
    assert not np.isfinite(values[[0, 1, 10, 11]]).any()
    assert not np.isfinite(values[:, [0, 3, 12, 15]]).any()
    assert np.isfinite(values[2:6, 4:12]).all()


@pytest.mark.parametrize("shape", [(12, 16), (12, 16, 9, 2)])
def test_planes_and_series(tmp_path, shape):
    result = read(nifti_of(heat_map((12, 16)), volume(tmp_path, shape=shape), Selection(frame=0), View.whole((12, 16))))
    assert result.shape == (12, 16, 1)


def test_nifti_2_stays_nifti_2(tmp_path):
    path = volume(tmp_path, kind=nibabel.Nifti2Image)
    content = nifti_of(heat_map((12, 16)), path, Selection(), View.whole((12, 16)))
    assert read(content, nibabel.Nifti2Image).header["descrip"].item().decode().startswith("läsion: drop of the logit")
    assert nifti_of(heat_map((12, 16)), path, Selection(), View.whole((12, 16))) == content


def dicom(content: bytes):
    return pydicom.dcmread(io.BytesIO(content))


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_a_parametric_map_lies_where_the_slice_lies(name):
    path = get_testdata_file(name)
    source = pydicom.dcmread(path)
    size = (source.Rows, source.Columns)
    view = View(size, (32, 32), (size[0] / 32, size[1] / 32), (0.0, 0.0))
    result = dicom(parametric_map_of(heat_map((32, 32)), path, Selection(), view))
    assert result.SOPClassUID == pydicom.uid.ParametricMapStorage
    assert (result.PatientID, result.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    assert result.FrameOfReferenceUID == source.FrameOfReferenceUID
    measures, frame = result.SharedFunctionalGroupsSequence[0], result.PerFrameFunctionalGroupsSequence[0]
    placed = {**_elements(measures), **_elements(frame)}
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        np.testing.assert_allclose(
            [float(value) for value in placed[key]], [float(value) for value in source[key].value], rtol=1e-6
        )
    stored = np.frombuffer(result.FloatPixelData, "<f4").reshape(size)
    np.testing.assert_array_equal(stored, heat_map((32, 32)).over(view))
    assert np.isnan(stored[-1]).all()
    assert (result.WindowCenter if "WindowCenter" in result else placed["WindowCenter"]) == 0


def _elements(group) -> dict:
    """All elements in a functional group, by keyword, sequences unfolded."""
    found = {}
    for element in group:
        if element.VR == "SQ":
            for item in element.value:
                found.update(_elements(item))
        else:
            found[element.keyword] = element.value
    return found


def test_private_data_is_not_copied():
    path = get_testdata_file("CT_small.dcm")
    private = [element.tag for element in pydicom.dcmread(path) if element.tag.is_private]
    assert private
    made = heat_map((128, 128))
    for content in (
        parametric_map_of(made, path, Selection(), View.whole((128, 128))),
        secondary_capture_of(made.overlay(), path),
    ):
        assert [element.tag for element in dicom(content).iterall() if element.tag.is_private] == []


def test_a_secondary_capture_is_the_overlay():
    path = get_testdata_file("CT_small.dcm")
    drawing = heat_map((128, 128)).overlay()
    result = dicom(secondary_capture_of(drawing, path))
    assert result.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    np.testing.assert_array_equal(result.pixel_array, np.asarray(drawing.convert("RGB")))
    assert result.PatientName == pydicom.dcmread(path).PatientName
    assert not result.PatientOrientation


@pytest.mark.parametrize("name", ["examples_overlay.dcm", "no_meta.dcm"])
def test_a_picture_of_no_known_place_has_no_parametric_map(name, tmp_path):
    path = tmp_path / "scan.dcm"
    source = pydicom.dcmread(get_testdata_file(name), force=True)
    for key in ("ImagePositionPatient", "PerFrameFunctionalGroupsSequence"):
        if key in source:
            del source[key]
    source.save_as(path)
    with pytest.raises(ImageError, match=r"scan.dcm: (does not say where in the patient|has no )"):
        parametric_map_of(heat_map((128, 128)), path, Selection(), View.whole((128, 128)))


def test_a_flat_map_has_a_window():
    path, flat = get_testdata_file("CT_small.dcm"), heat_map((128, 128))
    flat = replace(flat, scores=np.full_like(flat.scores, 1000))
    result = dicom(parametric_map_of(flat, path, Selection(), View.whole((128, 128))))
    stored = np.frombuffer(result.FloatPixelData, "<f4")
    assert set(stored[np.isfinite(stored)]) == {0}
