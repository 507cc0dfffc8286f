"""Windows: which values of a file are shown, from black to white."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from kcompiler.runtime.arrays import AnyArray, DoubleArray
from kcompiler.runtime.errors import UsageError

Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
"""VOI LUT functions of DICOM."""
FUNCTIONS: tuple[Function, ...] = get_args(Function)
WHITE = 255.0


def check_window(window: tuple[float, float]) -> None:
    """Raises a :class:`UsageError` unless ``window`` is a finite (centre, width) with a width above 0."""
    if not (np.isfinite(window).all() and window[1] > 0):
        raise UsageError(f"window is {window[0]:g},{window[1]:g}, expected a centre and a width above 0")


def window_wanted(values: AnyArray) -> str:
    """What to do about values [H, W] whose range is not known: the end of an error's message."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    every = (
        f" (the values are {low:.6g} to {high:.6g}: --window {(low + high) / 2:.6g},{high - low:.6g} shows all)"
        if low < high
        else ""
    )
    return f"give --window CENTRE,WIDTH{every}"


def windowed(values: AnyArray, window: tuple[float, float], function: Function = "LINEAR_EXACT") -> DoubleArray:
    """Values as 0..255, float64, by a window (centre, width): DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.

    Raises:
        UsageError: the window is not one, or of a width below 1 where LINEAR needs it.
    """
    check_window(window)
    (centre, width), numbers = window, np.asarray(values, dtype=np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            shown: DoubleArray = WHITE / (1 + np.exp(-4 * (numbers - centre) / width))
        return shown
    if function == "LINEAR":
        if width < 1:
            raise UsageError(f"window is {centre:g},{width:g}, expected a width of at least 1: the file's function is LINEAR")
        if width == 1:
            return np.where(numbers <= centre - 0.5, 0.0, WHITE)
        return np.clip(((numbers - (centre - 0.5)) / (width - 1) + 0.5) * WHITE, 0, WHITE)
    return np.clip(((numbers - centre) / width + 0.5) * WHITE, 0, WHITE)
