"""The type of a model's image: which numbers its pixels can be.

Compiled models take float32 images whatever the source takes. Where the source takes another type, images and what covers them
hold only numbers that both types have, so that the cast in front of the source changes none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import AnyArray, FloatArray
from kcompiler.runtime.errors import KCompilerError

ElementName = Literal[
    "float32", "float64", "float16", "bfloat16", "bool",
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
]  # fmt: skip
NAMES: tuple[ElementName, ...] = get_args(ElementName)
EXACT_UP_TO = 1 << 24
"""Whole numbers up to this magnitude are float32 numbers."""
PICTURE = (0, 255)
"""Pixels of a picture: what random images of whole numbers are drawn from, as far as the type has them."""


@dataclass(frozen=True, slots=True)
class Element:
    """The type of the pixels that a source takes, by its name in numpy (and bfloat16)."""

    name: ElementName

    @property
    def whole(self) -> bool:
        """Whether pixels are whole numbers."""
        return "float" not in self.name

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of arrays that the source takes; numpy has no bfloat16, whose bits travel as uint16."""
        return np.dtype(np.uint16) if self.name == "bfloat16" else np.dtype(self.name)

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the largest whole number that a pixel may be."""
        if self.name == "bool":
            return 0, 1
        limits = np.iinfo(self.name)
        return max(limits.min, -EXACT_UP_TO), min(limits.max, EXACT_UP_TO)

    def fitted(self, numbers: npt.ArrayLike) -> FloatArray:
        """The numbers of this type nearest to ``numbers``, as float32: whole ones are rounded, and clipped to the range."""
        array = np.asarray(numbers, dtype=np.float32)
        if self.whole:
            return np.asarray(np.clip(np.rint(array), *self.bounds), dtype=np.float32)
        if self.name == "float16":
            with np.errstate(over="ignore"):
                return array.astype(np.float16).astype(np.float32)
        return _bfloat16(array) if self.name == "bfloat16" else array

    def checked(self, numbers: FloatArray, name: str, error: type[KCompilerError]) -> FloatArray:
        """``numbers`` [C, H, W], or fewer axes, as this type can hold them: floats are rounded to it, whole numbers must be.

        Raises:
            error: a number is not whole or out of range; the message begins with ``name`` and says which.
        """
        fitted = self.fitted(numbers)
        wrong = np.argwhere(fitted != numbers if self.whole else ~np.isfinite(fitted))
        if wrong.size:
            place = tuple(int(i) for i in wrong[0])
            where = f" at channel, y, x = {place}" if len(place) == 3 else ""
            expected = "whole numbers from {} to {}".format(*self.bounds) if self.whole else "numbers that it can hold"
            raise error(f"{name}: the model takes {self.name}, expected {expected}; found {numbers[place]!s}{where}")
        return fitted

    def random(self, rng: np.random.Generator, shape: tuple[int, ...], spread: str) -> FloatArray:
        """Random pixels: of floats standard "normal", or in the "unit" interval; of whole numbers those of pictures."""
        if self.whole:
            low, high = (int(np.clip(bound, *self.bounds)) for bound in PICTURE)
            low = self.bounds[0] if high - low < PICTURE[1] else low
            return rng.integers(low, high, shape, endpoint=True).astype(np.float32)
        draw = rng.standard_normal if spread == "normal" else rng.random
        return self.fitted(draw(shape, dtype=np.float32))

    def in_last_place(self, numbers: FloatArray, seed: int) -> FloatArray:
        """The same with each number off by up to a unit in the last place of float32, at random.

        Whole numbers and halves stay as they are: their own last places are far coarser than the rounding of float32.
        """
        if self.name not in ("float32", "float64"):
            return numbers
        units = np.random.default_rng(seed).uniform(-1, 1, numbers.shape) * 2.0**-23
        return self.fitted(numbers * (1 + units))

    def given(self, images: FloatArray) -> AnyArray:
        """Fitted float32 images in the type itself, as the source takes them."""
        if self.name == "bfloat16":
            return (np.ascontiguousarray(images, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return images.astype(self.dtype)


FLOAT32 = Element("float32")


def _bfloat16(array: FloatArray) -> FloatArray:
    """Rounded to the nearest that has the upper 16 bits alone, to the even one of two."""
    bits = np.array(array, dtype=np.float32, order="C", ndmin=1).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32).reshape(array.shape)
