"""Pictures that once took all memory, for ever, or ended in a traceback, each made anew: bombs, lies, and what is no file."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tifffile
from PIL import Image

from tests.fuzz.cases import Case, Content, link_loop, sparse
from tests.fuzz.pictures import BYTES, by_pillow, dicom, nifti, npy

BOMB = 13_300, 13_400
"""(height, width) below Pillow's limit, and above ours."""
LARGE = 9_400, 9_400
"""(height, width) below ours."""
BYTE_ARRAY = "{'descr': '|u1', 'fortran_order': False, 'shape': "


def png(height: int, width: int, colour: int = 2, depth: int = 8) -> bytes:
    """A PNG of zeros: a kilobyte for each megabyte of pixels."""
    row = 1 + (width * {0: 1, 2: 3}[colour] * depth + 7) // 8
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    data = (
        b"".join(packer.compress(zeros[: min(1 << 20, row * height - at)]) for at in range(0, row * height, 1 << 20))
        + packer.flush()
    )

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def progressive(scans: int) -> bytes:
    """A JPEG of 4096 x 4096 whose last scan is repeated."""
    content = by_pillow(np.zeros((4096, 4096), np.uint8), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


def npy_of(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def archive(name: str, content: bytes, size: int) -> bytes:
    """A .npz whose array is followed by ``size`` zeros."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened, opened.open(name, "w", force_zip64=True) as member:
        member.write(content)
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return stream.getvalue()


def deflated(size: int, **format_: object) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, **format_)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def gzipped(content: bytes, size: int) -> bytes:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as packed:
        packed.write(content)
        for _ in range(size >> 20):
            packed.write(bytes(1 << 20))
    return stream.getvalue()


def volume(*shape: int) -> bytes:
    """The header of a NIfTI volume that has another shape than its file."""
    content = bytearray(nifti(np.zeros((2, 2, 2), np.uint8)))
    content[40:56] = struct.pack("<8h", len(shape), *(min(size, 32767) for size in shape), *[1] * (7 - len(shape)))
    return bytes(content)


def packed_tiff(compression: int, segment: bytes, *, height: int = 8, width: int = 8) -> bytes:
    """A TIFF of float32 whose only strip is ``segment``."""
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, 32), (259, 3, compression), (262, 3, 1), (273, 4, 200), (277, 3, 1),
        (278, 4, height), (279, 4, len(segment)), (339, 3, 3),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    head = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + segment


def deflated_dicom(size: int) -> bytes:
    content = dicom("1.2.840.10008.1.2.1.99")
    start = content.index(b"1.2.840.10008.1.2.1.99")
    import pydicom

    stream = io.BytesIO(content)
    pydicom.filereader.read_preamble(stream, False)
    pydicom.filereader.read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
    assert stream.tell() > start
    return content[: stream.tell()] + deflated(size, wbits=-15)


def lying_dicom() -> bytes:
    """A JPEG 2000 of 9,000 x 9,000 in a header of 19 x 27."""
    import pydicom
    from pydicom.encaps import encapsulate

    made = pydicom.dcmread(io.BytesIO(dicom("1.2.840.10008.1.2.4.90", deep=False)))
    made.PixelData = encapsulate([by_pillow(np.zeros((9000, 9000), np.uint8), "JPEG2000")])
    stream = io.BytesIO()
    made.save_as(stream)
    return stream.getvalue()


def deep_dicom(depth: int) -> bytes:
    """Sequences within sequences, none of which ends."""
    content = dicom(deep=False)
    at = content.index(b"\x28\x00\x02\x00US")
    return content[:at] + (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth) + content[at:]


def looping_tiff() -> bytes:
    """A TIFF whose directory names itself as the next."""
    content = bytearray(by_pillow(BYTES, "TIFF"))
    (at,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, at)
    struct.pack_into("<I", content, at + 2 + 12 * entries, at)
    return bytes(content)


def many_frames(count: int) -> bytes:
    content = by_pillow(np.zeros((1, 1), np.uint8), "GIF")
    frame = content[content.index(b",") : -1]
    return content[:-1] + frame * count + b";"


def large(kind: str) -> bytes:
    return by_pillow(np.zeros(LARGE, np.uint8), kind)


MAKERS: dict[str, Callable[[], Content]] = {
    "a bomb below Pillow's limit.png": lambda: png(*BOMB),
    "a bomb of one column.png": lambda: png(89_000_000, 1, 0),
    "a bomb of one row.png": lambda: png(1, 89_000_000, 0),
    "a deep bomb.png": lambda: png(9_000, 9_000, 2, 16),
    "a deep bomb of gray.png": lambda: png(9_400, 9_400, 0, 16),
    "as large as may be.png": lambda: png(*LARGE),
    "as large as may be.jpg": lambda: large("JPEG"),
    "as large as may be.webp": lambda: large("WEBP"),
    "as large as may be.gif": lambda: large("GIF"),
    "as large as may be.bmp": lambda: large("BMP"),
    "a thousand scans.jpg": lambda: progressive(1000),
    "a hundred scans.jpg": lambda: progressive(100),
    "a hundred thousand frames.gif": lambda: many_frames(100_000),
    "10^12 numbers.npy": lambda: npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
    "5,000 digits.npy": lambda: npy_of(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 40}, 3), }}"),
    "below zero.npy": lambda: npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -4), }"),
    "no header.npy": lambda: npy_of("{'descr': "),
    "many brackets.npy": lambda: npy_of("(" * 110),
    "large items.npy": lambda: npy_of("{'descr': '|V2000000000', 'fortran_order': False, 'shape': (5, 5), }"),
    "large texts.npy": lambda: npy_of("{'descr': '<U500000000', 'fortran_order': False, 'shape': (5, 5), }"),
    "arrays as items.npy": lambda: npy_of("{'descr': ('<f8', (9999, 9999)), 'fortran_order': False, 'shape': (5, 5), }"),
    "a long header.npy": lambda: b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{" * 2000,
    "of the largest size.npy": lambda: npy_of("{'descr': '<f8', 'fortran_order': False, 'shape': (8000, 8000), }"),
    "a bomb.npz": lambda: archive("a.npy", npy(BYTES), 1 << 30),
    "a bomb of an array.npz": lambda: archive("a.npy", npy_of(f"{BYTE_ARRAY}(23000, 23000), }}"), 1 << 29),
    "a bomb.nii.gz": lambda: gzipped(volume(1000, 1000, 1000), 1 << 30),
    "a larger bomb.nii.gz": lambda: gzipped(volume(2048, 2048, 2000), 1 << 28),
    "lies.nii": lambda: volume(30000, 30000, 30000),
    "a bomb.dcm": lambda: deflated_dicom(1 << 30),
    "lies.dcm": lying_dicom,
    "deep.dcm": lambda: deep_dicom(5000),
    "a bomb.tif": lambda: packed_tiff(8, deflated(1 << 30)),
    "a bomb of another kind.tif": lambda: packed_tiff(34925, lzma.compress(bytes(1 << 30))),
    "large tiles.tif": lambda: _tiles(),
    "a loop.tif": looping_tiff,
    "as large as may be.tif": lambda: by_pillow(Image.new("I;16", (8100, 8100)), "TIFF", compression="tiff_adobe_deflate"),
    "a pipe.png": lambda: lambda path: os.mkfifo(path),
    "a pipe.npy": lambda: lambda path: os.mkfifo(path),
    "a device.png": lambda: lambda path: path.symlink_to("/dev/zero"),
    "a circle.png": lambda: link_loop,
    "a folder.dcm": lambda: lambda path: path.mkdir(),
    "a terabyte.png": lambda: sparse(1 << 40, png(4, 4)[:40]),
    "a terabyte.nii": lambda: sparse(1 << 40, volume(2000, 2000, 2000)[:352]),
    "a terabyte.npy": lambda: sparse(1 << 40, npy(BYTES)[:128]),
    "nothing.png": lambda: b"",
}  # fmt: skip


def _tiles() -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((16, 16), np.float32), tile=(16, 16))
    content = stream.getvalue()
    return content.replace(struct.pack("<HHII", 322, 3, 1, 16), struct.pack("<HHII", 322, 4, 1, 1 << 30)).replace(
        struct.pack("<HHII", 323, 3, 1, 16), struct.pack("<HHII", 323, 4, 1, 1 << 30)
    )


def cases(seed: int = 0) -> Iterator[Case]:
    """All of them; the same for each seed."""
    for name, make in MAKERS.items():
        yield name, {name.replace(" ", "-"): make()}
