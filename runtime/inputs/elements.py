"""The element type of a model's image, and the values that its pixels can have.

Compiled models take float32 images, whatever type the source takes. Where the source takes another type, images and fills hold
only values that both types can represent, so that the cast before the source changes none of them.
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
"""Float32 represents all whole numbers up to this magnitude."""
PICTURE = (0, 255)
"""Range of 8-bit pixels. Random images of whole numbers are drawn from it, as far as the type covers it."""


@dataclass(frozen=True, slots=True)
class Element:
    """The element type of a source's image, by its name in numpy, or "bfloat16"."""

    name: ElementName

    @property
    def whole(self) -> bool:
        """Whether pixels are whole numbers."""
        return "float" not in self.name

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy type of the source's arrays; numpy has no bfloat16, so its bits are passed as uint16."""
        return np.dtype(np.uint16) if self.name == "bfloat16" else np.dtype(self.name)

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest value of a pixel, for types of whole numbers."""
        if self.name == "bool":
            return 0, 1
        limits = np.iinfo(self.name)
        return max(limits.min, -EXACT_UP_TO), min(limits.max, EXACT_UP_TO)

    def fitted(self, numbers: npt.ArrayLike) -> FloatArray:
        """Rounds ``numbers`` to the nearest values of this type, as float32; types of whole numbers also clip to their range."""
        array = np.asarray(numbers, dtype=np.float32)
        if self.whole:
            return np.asarray(np.clip(np.rint(array), *self.bounds), dtype=np.float32)
        if self.name == "float16":
            with np.errstate(over="ignore"):
                return array.astype(np.float16).astype(np.float32)
        return _bfloat16(array) if self.name == "bfloat16" else array

    def checked(self, numbers: FloatArray, name: str, error: type[KCompilerError]) -> FloatArray:
        """``numbers``, [C, H, W] or fewer axes, as values of this type. Only floating-point types round.

        Raises:
            error: a number is not whole, or out of range; the message begins with ``name`` and locates the number.
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
        """Random pixels: whole numbers as in 8-bit pictures; floats "normal" (standard), or in the "unit" interval."""
        if self.whole:
            low, high = (int(np.clip(bound, *self.bounds)) for bound in PICTURE)
            low = self.bounds[0] if high - low < PICTURE[1] else low
            return rng.integers(low, high, shape, endpoint=True).astype(np.float32)
        draw = rng.standard_normal if spread == "normal" else rng.random
        return self.fitted(draw(shape, dtype=np.float32))

    def in_last_place(self, numbers: FloatArray, seed: int) -> FloatArray:
        """Perturbs each number at random by up to a unit in the last place of float32.

        Whole numbers, float16 and bfloat16 are not perturbed: their spacing is far coarser than the rounding of float32.
        """
        if self.name not in ("float32", "float64"):
            return numbers
        rng, perturbed = np.random.default_rng(seed), np.empty_like(numbers, dtype=np.float32)
        for place, part in enumerate(numbers):  # in double precision, of a part at a time: images may be large
            perturbed[place] = self.fitted(part * (1 + rng.uniform(-1, 1, part.shape) * 2.0**-23))
        return perturbed

    def given(self, images: FloatArray) -> AnyArray:
        """Converts fitted float32 images to this type, for the source."""
        if self.name == "bfloat16":
            return (np.ascontiguousarray(images, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return images.astype(self.dtype)


FLOAT32 = Element("float32")


def _bfloat16(array: FloatArray) -> FloatArray:
    """Rounds float32 to bfloat16, its upper 16 bits; ties go to even."""
    bits = np.array(array, dtype=np.float32, order="C", ndmin=1).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32).reshape(array.shape)
