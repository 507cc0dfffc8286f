"""Hostile pictures: valid ones of every format that is read, with bytes or numbers of their files changed at random."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from PIL import Image

from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.inputs.preprocessing import Preprocessing, read_picture
from kcompiler.runtime.inputs.selection import Selection
from tests.fuzz.cases import Case
from tests.fuzz.changes import changed

SIZE = (24, 32)
RECIPES = {
    kind: Preprocessing(
        size=SIZE, resize=kind, shorter_side=24 if kind == "crop" else None, scale=1 / 255, mean=(0.5,) * 3, std=(0.2,) * 3,
        channel_order="RGB", rounded=rounded, crop_at="floor" if rounded else "fraction",
    )
    for kind, rounded in (("stretch", True), ("crop", False), ("letterbox", False))
}  # fmt: skip
BYTES = np.random.default_rng(0).integers(0, 256, (19, 27, 3), np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (19, 27), np.uint16)


def by_pillow(picture: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(stream, kind, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(*arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, *arrays)
    return stream.getvalue()


def nifti(array: np.ndarray) -> bytes:
    import nibabel

    image = nibabel.Nifti1Image(array, np.eye(4))
    image.header["cal_max"] = 255
    return bytes(image.to_bytes())


def dicom(syntax: str = "1.2.840.10008.1.2.1", *, deep: bool = True, nested: int = 0) -> bytes:
    """A DICOM picture: native, deflated, JPEG or RLE by its transfer syntax; sequences ``nested`` into each other."""
    import pydicom
    from pydicom.encaps import encapsulate

    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    made.Rows, made.Columns = DEEP.shape
    bits = 16 if deep else 8
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits, bits - 1, 0
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.WindowCenter, made.WindowWidth = 100, 200
    inner = made
    for _ in range(nested):
        item = pydicom.Dataset()
        inner.ReferencedImageSequence = [item]
        inner = item
    made.PixelData = (DEEP if deep else BYTES[..., 0]).tobytes()
    if syntax.endswith("4.50"):
        made.PixelData = encapsulate([by_pillow(BYTES[..., 0], "JPEG")])
    elif syntax.endswith("4.90"):
        made.PixelData = encapsulate([by_pillow(BYTES[..., 0], "JPEG2000")])
    elif syntax.endswith("1.2.5"):
        made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        made.compress(syntax)
    with TemporaryDirectory() as folder:
        pydicom.dcmwrite(Path(folder) / "a.dcm", made, enforce_file_format=True)
        return (Path(folder) / "a.dcm").read_bytes()


def _frames(kind: str) -> bytes:
    frames = [Image.fromarray(np.roll(BYTES, number, 0)) for number in range(3)]
    return by_pillow(frames[0], kind, save_all=True, append_images=frames[1:])


def _packed(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


GRAY = BYTES[..., 0]
MAKERS: dict[str, Callable[[], bytes]] = {
    "rgb.png": lambda: by_pillow(BYTES, "PNG"),
    "gray.png": lambda: by_pillow(GRAY, "PNG"),
    "deep.png": lambda: by_pillow(DEEP, "PNG"),
    "palette.png": lambda: by_pillow(Image.fromarray(BYTES).convert("P"), "PNG"),
    "frames.png": lambda: _frames("PNG"),
    "plain.jpg": lambda: by_pillow(BYTES, "JPEG"),
    "progressive.jpg": lambda: by_pillow(BYTES, "JPEG", progressive=True),
    "cmyk.jpg": lambda: by_pillow(Image.fromarray(BYTES).convert("CMYK"), "JPEG"),
    "turned.jpg": lambda: by_pillow(BYTES, "JPEG", exif=_turned()),
    "a.webp": lambda: by_pillow(BYTES, "WEBP"),
    "a.bmp": lambda: by_pillow(BYTES, "BMP"),
    "a.gif": lambda: by_pillow(GRAY, "GIF"),
    "frames.gif": lambda: _frames("GIF"),
    "a.ppm": lambda: by_pillow(BYTES, "PPM"),
    "a.pgm": lambda: b"P2 4 3 300\n" + b" ".join(b"%d" % number for number in range(12)),
    "a.tga": lambda: by_pillow(BYTES, "TGA", compression="tga_rle"),
    "a.jp2": lambda: by_pillow(BYTES, "JPEG2000"),
    "a.avif": lambda: by_pillow(BYTES, "AVIF"),
    "a.tif": lambda: tiff(BYTES),
    "packed.tif": lambda: by_pillow(BYTES, "TIFF", compression="tiff_lzw"),
    "deep.tif": lambda: tiff(DEEP, compression="zlib"),
    "colours.tif": lambda: tiff(BYTES.astype(np.uint16) * 257, photometric="rgb", compression="zlib", predictor=True),
    "floats.tif": lambda: tiff(DEEP.astype(np.float32)),
    "tiles.tif": lambda: tiff(np.tile(DEEP, (2, 2)).astype(np.float32), tile=(16, 16), compression="zlib"),
    "pages.tif": lambda: tiff(np.stack([GRAY, GRAY[::-1]]), photometric="minisblack"),
    "a.npy": lambda: npy(BYTES),
    "floats.npy": lambda: npy(DEEP.astype(np.float64)),
    "a.npz": lambda: npz(BYTES),
    "two.npz": lambda: npz(BYTES, BYTES),
    "a.nii": lambda: nifti(np.stack([GRAY] * 5, axis=-1)),
    "a.nii.gz": lambda: gzip.compress(nifti(np.stack([DEEP] * 5, axis=-1))),
    "a.dcm": dicom,
    "bytes.dcm": lambda: dicom(deep=False),
    "nested.dcm": lambda: dicom(nested=5),
    "deflated.dcm": lambda: dicom("1.2.840.10008.1.2.1.99"),
    "jpeg.dcm": lambda: dicom("1.2.840.10008.1.2.4.50", deep=False),
    "jpeg2000.dcm": lambda: dicom("1.2.840.10008.1.2.4.90", deep=False),
    "rle.dcm": lambda: dicom("1.2.840.10008.1.2.5"),
}


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def originals() -> dict[str, bytes]:
    return {name: make() for name, make in MAKERS.items()}


def cases(seed: int) -> Iterator[Case]:
    """The valid pictures, and then changes to them without end."""
    made = originals()
    for name, content in made.items():
        yield f"{name} as it is", {name: content}
    rng, number = np.random.default_rng(seed), 0
    names = list(made)
    while True:
        name = names[int(rng.integers(len(names)))]
        inner = "arr_0.npy" if name.endswith(".npz") and rng.random() < 0.7 else None
        packed = name.endswith(".gz") and rng.random() < 0.7
        content = MAKERS["a.npy"]() if inner else gzip.decompress(made[name]) if packed else made[name]
        how, content = changed(rng, content)
        content = _packed(inner, content) if inner else gzip.compress(content) if packed else content
        yield f"{name} {number} {how}", {name: content}
        number += 1


def attempt(folder: Path) -> None:
    """Reads the picture as ``kcompiler explain`` does, with what its error asks for; checks what is made of it."""
    (path,) = folder.iterdir()
    recipe = list(RECIPES.values())[path.stat().st_size % 3 if not path.is_dir() and path.exists() else 0]
    selection = Selection()
    for _ in range(3):
        try:
            picture = read_picture(path, recipe, selection)
        except ImageError as error:
            asked = re.search(r"--(window|frame) ", str(error))
            if asked is None or getattr(selection, asked[1]) is not None:
                raise
            selection = (
                Selection(window=(100.0, 300.0), frame=selection.frame)
                if asked[1] == "window"
                else Selection(window=selection.window, frame=0)
            )
            continue
        break
    assert picture.tensor.shape == (1, 3, *SIZE)
    assert np.isfinite(picture.tensor).all()
    assert picture.pixels.shape == (*SIZE, 3)
    assert picture.source.shape == (*picture.view.picture, 3)
