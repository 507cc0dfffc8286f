"""``kcompiler explain`` reads the files that people have, and nothing of them but pixels is written."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from map_models import compiled
from networks import save
from typer.testing import CliRunner

import kcompiler
from kcompiler.cli import app
from kcompiler.commands.input_files import read_shown, selected
from kcompiler.runtime.inputs.selection import Selection

pydicom = pytest.importorskip("pydicom")
SIZE = (17, 24)
RECIPE = kcompiler.Preprocessing(size=SIZE, resize="stretch", scale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3, channel_order="RGB")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("bundle"), "residual", preprocessing=RECIPE)


@pytest.fixture
def scan(tmp_path):
    """A DICOM file of two frames, 16 bits, signed, that names a patient."""
    from pydicom.dataset import Dataset, FileMetaDataset

    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = pydicom.uid.CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "1.2.3"
    header.PatientName, header.PatientID, header.PatientBirthDate = "Jane^Secret", "ID-4711", "19700101"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.NumberOfFrames, (header.Rows, header.Columns) = 2, SIZE
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.PixelData = np.random.default_rng(0).integers(-1000, 1000, (2, *SIZE)).astype(np.int16).tobytes()
    header.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    return tmp_path / "scan.dcm"


def run(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_a_frame_by_a_window(bundle, scan, tmp_path):
    out = tmp_path / "maps"
    arguments = ("explain", bundle, scan, "-o", out, "--stride", 8)
    assert "2 frames" in run(*arguments, code=3)
    assert "--window" in run(*arguments, "--frame", 1, code=3)
    assert not out.exists()
    run(*arguments, "--frame", 1, "--window", "0,2000")
    record = json.loads((out / "scan.json").read_text())
    assert record["settings"]["selection"] == {"window": [0.0, 2000.0], "frame": 1}
    picture = kcompiler.load(bundle).read_image(scan, frame=1, window=(0, 2000))
    expected = kcompiler.load(bundle).explain(picture.tensor, stride=8)
    np.testing.assert_allclose(np.load(out / "scan.npy"), expected.scores, rtol=1e-5)
    assert "complete already" in run(*arguments, "--frame", 1, "--window", "0,2000", "--resume")
    assert "other settings" in run(*arguments, "--frame", 0, "--window", "0,2000", "--resume", code=2)
    for path in out.iterdir():
        assert not any(secret in path.read_bytes() for secret in (b"Secret", b"4711", b"19700101")), path


def test_arrays_are_preprocessed_images_or_pixels(bundle, tmp_path):
    explainer = kcompiler.load(bundle)
    image = np.random.default_rng(0).standard_normal((1, 3, *SIZE), dtype=np.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for name, array in (("A.NPY", image), ("b.npz", image), ("c.npy", pixels), ("d.NPZ", pixels)):
        with (tmp_path / name).open("wb") as stream:
            (np.savez if name[2:].lower() == "npz" else np.save)(stream, array)
        expected = image if array is image else explainer.read_image(tmp_path / name).tensor
        np.testing.assert_array_equal(read_shown(explainer, tmp_path / name).tensor, expected)
    np.save(tmp_path / "e.npy", image[:, :, 1:])
    with pytest.raises(kcompiler.ImageError, match="has shape"):
        read_shown(explainer, tmp_path / "e.npy")
    with pytest.raises(kcompiler.UsageError, match="leave out --window, --frame"):
        read_shown(explainer, tmp_path / "A.NPY", Selection(frame=0))


def test_options_that_are_no_selection():
    assert selected("40,400", 1, None, 2) == Selection((40.0, 400.0), 1, None, 2)
    for arguments in (("40", None, None, None), ("a,b", None, None, None), ("1,0", None, None, None), ("nan,1", None, None, None),
                      (None, -1, None, None), (None, None, 3, None), (None, None, None, -1)):  # fmt: skip
        with pytest.raises(kcompiler.UsageError):
            selected(*arguments)


@pytest.mark.parametrize("preset", ["imagenet", "unit", "minus-one-one", "caffe"])
def test_presets_have_the_models_size(tmp_path, preset):
    recipe = compiled(tmp_path, "residual", preprocessing=preset)
    manifest = kcompiler.load(recipe).manifest
    assert manifest.preprocessing.size == manifest.shape[1:]
    assert manifest.preprocessing.channels == manifest.shape[0]


def test_compile_says_what_it_takes_without_a_recipe(tmp_path):
    model = save("residual", tmp_path / "model.onnx", *SIZE)
    said = " ".join(run("compile", model, "--patch", 5).split())
    assert "takes preprocessed float32 arrays [3, 17, 24]" in said
    assert "--preprocessing imagenet" in said
    assert "unit" in said
    said = run("compile", model, "--patch", 5, "--preprocessing", "imagenett", "--force", code=2)
    assert "presets are imagenet, unit, minus-one-one, caffe" in " ".join(said.split())
    assert "takes preprocessed" not in run("compile", model, "--patch", 5, "--preprocessing", "unit", "--force")


def test_maps_in_the_formats_of_medical_pictures(bundle, tmp_path):
    source, out = pydicom.data.get_testdata_file("CT_small.dcm"), tmp_path / "maps"
    arguments = ("explain", bundle, source, "-o", out, "--stride", 8, "--window", "40,400")
    run(*arguments)
    run(*arguments, "--also", "nifti", "--resume", code=3)  # is no NIfTI
    run(*arguments, "--also", "parametric-map", "--also", "secondary-capture", "--resume")  # the map is complete, they are not
    names = {"CT_small.npy", "CT_small.png", "CT_small.json", "CT_small.drop.dcm", "CT_small.overlay.dcm"}
    assert {path.name for path in out.iterdir()} == names
    digests = json.loads((out / "CT_small.json").read_text())["sha256"]
    assert digests[".drop.dcm"] == hashlib.sha256((out / "CT_small.drop.dcm").read_bytes()).hexdigest()
    numbers = np.frombuffer(pydicom.dcmread(out / "CT_small.drop.dcm").FloatPixelData, "<f4").reshape(128, 128)
    picture = kcompiler.load(bundle).read_image(source, window=(40, 400))
    np.testing.assert_array_equal(numbers, kcompiler.HeatMap.load(out / "CT_small.json").over(picture.view))
    assert "complete already" in run(*arguments, "--also", "parametric-map", "--resume")
