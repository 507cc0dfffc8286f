"""How many bits unsigned samples use, and samples as 0..255."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kcompiler.runtime.arrays import AnyArray, DoubleArray
from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.inputs.selection import Wanted
from kcompiler.runtime.inputs.windows import WHITE, window_wanted, windowed

USUAL_DEPTHS = (10, 12, 14)
"""Bits of cameras and scanners that store 16 a sample."""


def in_range(samples: AnyArray, wanted: Wanted, declared: int | None, path: Path) -> AnyArray:
    """Samples as 0..255, float64, bytes as they are: by the window if they are no bytes, and else by their depth.

    Args:
        samples: numbers of any type.
        wanted: the caller's window and the recipe's; only the caller's is of bytes, which are pixels already.
        declared: bits that the file says its samples use; None if it does not.
        path: of the file.

    Raises:
        ImageError: the range of the samples is not known, or they exceed it.
    """
    byte = samples.dtype == np.uint8
    window = wanted.selection.window if byte else wanted.shown
    if window is not None:
        if not np.isfinite(samples).all():
            raise ImageError(f"{path}: has numbers that are not finite")
        return windowed(samples, window)
    if byte:
        return samples
    if samples.dtype != np.uint16:
        raise ImageError(f"{path}: has {samples.dtype} samples, whose range is not known; {window_wanted(samples)}")
    return scaled(samples, depth(samples, wanted.bits, declared, path), path)


def scaled(samples: AnyArray, bits: int, path: Path) -> DoubleArray:
    """Unsigned samples of ``bits`` bits as 0..255, float64.

    Raises:
        ImageError: a sample has more bits.
    """
    largest = int(samples.max(initial=0))
    if largest >= 1 << bits:
        raise ImageError(f"{path}: has the value {largest}, but its depth is {bits} bits, expected at most {(1 << bits) - 1}")
    return samples.astype(np.float64) / (((1 << bits) - 1) / WHITE)


def depth(samples: AnyArray, wanted: int | None, declared: int | None, path: Path) -> int:
    """How many bits of its type unsigned samples use: of 8 bits all; of more what the recipe or the file declares.

    Raises:
        ImageError: neither does, and the values fill so little of the type that they may have fewer bits.
    """
    own = samples.dtype.itemsize * 8
    if own == 8:
        return own
    if wanted is not None or declared is not None:
        return wanted if wanted is not None else int(declared or own)
    largest = int(samples.max(initial=0))
    fits = next((bits for bits in USUAL_DEPTHS if largest < 1 << bits), None)
    if largest and fits is not None:
        raise ImageError(
            f"{path}: has 16 bits a sample, but no value above {largest}: it may hold {fits} bits, and would then be read "
            f'{(1 << 16 - fits)} times too dark; say "bits": {fits} (or "bits": 16) in the recipe, or give --window CENTRE,WIDTH'
        )
    return own
