"""DICOM: from stored values by the modality's rescaling and a window to 0..255. Nothing but pixels leaves this module."""

from __future__ import annotations

import warnings
import zlib
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from kcompiler.runtime.arrays import AnyArray, DoubleArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.bitmap import check_scans, encoded_size
from kcompiler.runtime.inputs.depth import scaled
from kcompiler.runtime.inputs.files import check_picture, chosen
from kcompiler.runtime.inputs.optional import optional
from kcompiler.runtime.inputs.selection import Wanted, planes_of
from kcompiler.runtime.inputs.unpacking import unpacks_beyond
from kcompiler.runtime.inputs.windows import FUNCTIONS, WHITE, Function, window_wanted, windowed

GRAY = ("MONOCHROME1", "MONOCHROME2")
META = 2
"""The group of the elements that are never deflated."""
JP2, CODESTREAM = b"\0\0\0\x0cjP  ", b"jp2c"
"""The beginning of a JPEG 2000 file, and the box in which its picture is."""
SHORTEST_BOX = 8
DEFLATED = "1.2.840.10008.1.2.1.99"
LARGEST_DEFLATED = 1 << 28
RAW = partial(zlib.decompressobj, -zlib.MAX_WBITS)
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


def read_dicom(path: Path, wanted: Wanted) -> list[AnyArray]:
    """Decodes a frame into planes [H, W] from 0 to 255, bytes or float32, black to white as it is to be shown.

    Gray: Modality LUT or rescaling; then the caller's window, the recipe's, the file's VOI LUT or its first window, or where it
    has neither and its values are unsigned as stored, the range of its bits; then MONOCHROME1 is inverted.
    """
    wanted.check_flat(path)
    optional("pydicom", path, "DICOM")
    with foreign(lambda why: ImageError(f"{path}: not a readable DICOM picture ({why})")), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about attributes that no picture is made of
        header, samples = _decoded(path, wanted)
        if header.SamplesPerPixel != 1 or header.PhotometricInterpretation == "PALETTE COLOR":
            wanted.check_without_window(path)
            return planes_of(_colours(header, samples, path))
        return planes_of(_shown(header, samples, wanted, path))


def _decoded(path: Path, wanted: Wanted) -> tuple[Any, AnyArray]:
    """Header and stored values of the frame, [H, W] or, converted to RGB, [H, W, 3]."""
    pydicom, pixels = (optional(module, path, "DICOM") for module in ("pydicom", "pydicom.pixels"))
    deflated = _is_deflated(path)
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    missing = [name for name in ("Rows", "Columns", "BitsStored", "PhotometricInterpretation") if name not in header]
    if missing:
        raise ImageError(f"{path}: has no {missing[0]}, so it holds no picture; expected a DICOM image")
    header.SamplesPerPixel = header.get("SamplesPerPixel", 1)
    if header.PhotometricInterpretation not in (*GRAY, *COLOUR):
        raise ImageError(f"{path}: photometric interpretation {header.PhotometricInterpretation} is not supported")
    itemsize = max(int(header.get("BitsAllocated") or 8) // 8, 1)
    check_picture(path, (header.Rows, header.Columns), header.SamplesPerPixel, itemsize)
    frames = int(header.get("NumberOfFrames") or 1)
    frame = chosen(path, "frame", wanted.selection.frame, frames)
    _check_frame(path, header, frame, frames)
    source = pydicom.dcmread(path, force=True) if deflated else path  # by its path pydicom finds no pixels in a deflated file
    return header, cast(AnyArray, pixels.pixel_array(source, index=frame))


def _is_deflated(path: Path) -> bool:
    """Whether the file is deflated.

    Raises:
        ImageError: it unpacks to more than any picture; pydicom unpacks all of it.
    """
    reader = optional("pydicom.filereader", path, "DICOM")
    with path.open("rb") as stream:
        if reader.read_preamble(stream, force=True) is None:
            return False
        meta = reader.read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != META)
        if meta.get("TransferSyntaxUID") != DEFLATED:
            return False
        if unpacks_beyond([stream.read()], LARGEST_DEFLATED, RAW):
            raise ImageError(f"{path}: unpacks to more than {LARGEST_DEFLATED} bytes; store it without deflating it")
        return True


def _check_frame(path: Path, header: Any, frame: int, frames: int) -> None:
    """Raises an :class:`ImageError` if a frame is a JPEG or JPEG 2000 of another size than the header says."""
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None or not getattr(syntax, "is_encapsulated", False):
        return
    content = optional("pydicom", path, "DICOM").dcmread(path, force=True, specific_tags=["PixelData"]).PixelData
    encoded = optional("pydicom.encaps", path, "DICOM").get_frame(content, frame, number_of_frames=frames)
    _check_boxes(path, encoded)
    if found := encoded_size(encoded):
        if found != (header.Rows, header.Columns):
            raise ImageError(f"{path}: frame {frame} is of {found} pixels, but the header says {(header.Rows, header.Columns)}")
        check_scans(path, encoded, found)


def _check_boxes(path: Path, encoded: bytes) -> None:
    """Raises an :class:`ImageError` if a box before the picture of a JPEG 2000 file is shorter than its own header.

    pydicom reads such a box again and again.
    """
    if not encoded.startswith(JP2):
        return
    at = len(JP2) + 4
    while at < len(encoded) and encoded[at + 4 : at + 8] != CODESTREAM:
        length = int.from_bytes(encoded[at : at + 4], "big")
        if length < SHORTEST_BOX:
            raise ImageError(f"{path}: has a JPEG 2000 box of {length} bytes, expected {SHORTEST_BOX} or more; store it again")
        at += length


def _colours(header: Any, samples: AnyArray, path: Path) -> DoubleArray:
    """RGB from 0 to 255."""
    if header.PhotometricInterpretation == "PALETTE COLOR":
        samples = optional("pydicom.pixels", path, "DICOM").apply_color_lut(samples, header)
        return scaled(samples, samples.dtype.itemsize * 8, path)
    return scaled(samples, header.BitsStored, path)


def _shown(header: Any, stored: AnyArray, wanted: Wanted, path: Path) -> DoubleArray:
    """Gray from 0 to 255."""
    pixels = optional("pydicom.pixels", path, "DICOM")
    values = pixels.apply_modality_lut(stored, header)
    if wanted.shown is not None:
        shown = windowed(values, wanted.shown, _function(header, path))
    elif header.get("VOILUTSequence"):
        shown = scaled(pixels.apply_voi(np.rint(values).astype(np.int64), header), _entry_bits(header.VOILUTSequence[0]), path)
    elif header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        shown = windowed(values, (_first(header.WindowCenter), _first(header.WindowWidth)), _function(header, path))
    else:
        shown = _unwindowed(header, stored, values, wanted, path)
    return WHITE - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown


def _unwindowed(header: Any, stored: AnyArray, values: AnyArray, wanted: Wanted, path: Path) -> DoubleArray:
    """Of values whose range is that of their bits."""
    rescaled = "ModalityLUTSequence" in header or (
        header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
    ) != (1, 0)  # fmt: skip
    if header.get("PixelRepresentation", 0) or rescaled or header.BitsStored > 16:
        raise ImageError(f"{path}: has no window, and its values have no range of their own; {window_wanted(values)}")
    deep = header.BitsStored > 8
    return scaled(stored, (wanted.bits if deep else None) or header.BitsStored, path)


def _function(header: Any, path: Path) -> Function:
    name = header.get("VOILUTFunction") or "LINEAR"
    if name not in FUNCTIONS:
        raise ImageError(f"{path}: VOI LUT function {name} is not known, expected {', '.join(FUNCTIONS)}")
    return cast(Function, name)


def _entry_bits(table: Any) -> int:
    """Bits of the entries of a lookup table."""
    bits = int(table.LUTDescriptor[2])
    if not 8 <= bits <= 16:
        raise ValueError(f"a VOI LUT of {bits} bits an entry, expected 8 to 16")
    return bits


def _first(value: Any) -> float:
    """The first of a window's alternatives."""
    return float(value if np.ndim(value) == 0 else value[0])
