"""The pictures that pages have given: read within bounds, kept while they are looked at."""

from __future__ import annotations

import io
import re
import secrets
import shutil
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from kcompiler.commands.input_files import read_shown
from kcompiler.runtime.arrays import ByteArray, FloatArray
from kcompiler.runtime.bundle.files import naming
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.view import View
from kcompiler.serving.refused import Refused

MOST_BYTES = 64 << 20
MOST_PIXELS = 64_000_000
KEPT = 16
"""Pictures kept at once; the one that was used longest ago goes first."""
SHOWN = 1600
"""Largest side of a picture as the page shows it, in pixels."""
Item = TypeVar("Item")


@dataclass(eq=False)
class Subject:
    """A picture that is explained.

    Attributes:
        path: the file as it was given.
        tensor: the model's input.
        pixels: uint8 [H, W, 3], what the model sees.
        source: uint8 [height, width, 3], the whole picture.
        view: where ``pixels`` lie in ``source``.
        uncovered: outputs of the uncovered picture, float32 [K], by the patch and the name of the model's output: models for
            different patches round differently.
    """

    path: Path
    tensor: FloatArray
    pixels: ByteArray
    source: ByteArray
    view: View
    uncovered: dict[tuple[tuple[int, int], str], FloatArray] = field(default_factory=dict)

    @cached_property
    def shown(self) -> bytes:
        """The whole picture as PNG, no larger than pages show it."""
        picture = Image.fromarray(self.source)
        picture.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
        return png(picture)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of the model's image in the whole picture, as shares of its height and width."""
        height, width = self.view.picture
        top, left, bottom, right = self.view.box_in_picture((0, 0, *self.view.model))
        return top / height, left / width, bottom / height, right / width


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG file, written fast rather than small."""
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)
    return file.getvalue()


class Kept(Generic[Item]):
    """The items that were used last, by names that cannot be guessed."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what, self._items = most, what, OrderedDict[str, Item]()

    def add(self, item: Item, name: str | None = None) -> tuple[str, list[Item]]:
        """The name of ``item``, which replaces one of the same name; and what had to go for it."""
        name = name or secrets.token_urlsafe(9)
        self._items[name] = item
        gone = [self._items.popitem(last=False)[1] for _ in range(len(self._items) - self._most)]
        return name, gone

    def get(self, name: str) -> Item:
        """The item called ``name``.

        Raises:
            Refused: there is none.
        """
        if name not in self._items:
            raise Refused(404, f"The {self._what} is not kept any more; choose the picture again.")
        self._items.move_to_end(name)
        return self._items[name]


def file_name(given: str) -> str:
    """A name for the file of a picture that was called ``given``: no folder, nothing that a file system takes amiss."""
    name = re.sub(r"[^\w.()+ -]", "_", given.replace("\\", "/").rpartition("/")[2]).strip(". ")
    stem, dot, suffix = name.rpartition(".")
    return f"{stem[:80]}.{suffix[:10]}" if dot and stem else name[:80] or "picture"


def read_subject(explainer: Explainer, folder: Path, name: str, content: bytes) -> Subject:
    """Writes a picture into a new folder inside ``folder``, and reads it as ``kcompiler explain`` does.

    Raises:
        Refused: too many pixels.
        ImageError: not a picture that the bundle can read.
        UsageError: the file cannot be written.
    """
    path = folder / secrets.token_hex(8) / file_name(name)
    with naming(path):
        path.parent.mkdir(mode=0o700)
    try:
        _check_size(content)
        with naming(path):
            path.write_bytes(content)
        shown = read_shown(explainer, path)
        return Subject(path, shown.tensor, shown.pixels, shown.picture, shown.view)
    except BaseException:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise


def forget(subjects: list[Subject]) -> None:
    """Removes the files of pictures that are not kept any more."""
    for subject in subjects:
        shutil.rmtree(subject.path.parent, ignore_errors=True)


def _check_size(content: bytes) -> None:
    """Refuses a picture whose header announces too many pixels, before anything is decoded."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            count = opened.width * opened.height
    except Image.DecompressionBombError:
        count = MOST_PIXELS + 1
    except Exception:
        return  # not a picture of Pillow's, or damaged: the reader will tell
    if count > MOST_PIXELS:
        raise Refused(413, f"The picture has more than {MOST_PIXELS // 1_000_000} million pixels; give a smaller one.")
