"""What of a file is the picture, and which of its values are black and white, where the file leaves that open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs.windows import check_window


@dataclass(frozen=True, slots=True)
class Selection:
    """Of files that hold more than one picture, or values without a range.

    Attributes:
        window: (centre, width) of the values to show, in the file's units (Hounsfield units of CT); None takes the recipe's, or
            else the file's own.
        frame: of a file of several frames, from 0.
        axis: of a volume, along which it is cut, from 0 to 2.
        index: of the slice along ``axis``, from 0; None is the one in the middle.

    Raises:
        UsageError: a number is out of range.
    """

    window: tuple[float, float] | None = None
    frame: int | None = None
    axis: int | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            check_window(self.window)
        for name, value, end in (("frame", self.frame, None), ("axis", self.axis, 3), ("slice", self.index, None)):
            if value is not None and (value < 0 or (end is not None and value >= end)):
                raise UsageError(f"{name} is {value}, expected 0 or more" + (f", below {end}" if end else ""))

    @property
    def record(self) -> dict[str, object]:
        """What was asked for, as JSON values; empty if nothing was."""
        given = {
            "window": list(self.window) if self.window else None,
            "frame": self.frame,
            "axis": self.axis,
            "slice": self.index,
        }
        return {name: value for name, value in given.items() if value is not None}


EVERYTHING = Selection()
"""Of files that leave nothing open."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader of files is asked for.

    Attributes:
        selection: by the caller.
        channels: of the model's image.
        bits, window: of the recipe; None if it does not say.
    """

    selection: Selection = EVERYTHING
    channels: int = 3
    bits: int | None = None
    window: tuple[float, float] | None = None

    @property
    def shown(self) -> tuple[float, float] | None:
        """The window of values to show: the caller's, or else the recipe's."""
        return self.selection.window or self.window

    def check_flat(self, path: Path) -> None:
        """Raises an :class:`ImageError` if a slice of a volume is asked for."""
        if self.selection.axis is not None or self.selection.index is not None:
            raise ImageError(f"{path}: is no volume; leave out --axis and --slice")

    def check_single(self, path: Path) -> None:
        """Raises an :class:`ImageError` if a frame, or a slice of a volume, is asked for."""
        self.check_flat(path)
        if self.selection.frame is not None:
            raise ImageError(f"{path}: has no frames; leave out --frame")

    def check_without_window(self, path: Path) -> None:
        """Raises an :class:`ImageError` if the caller gave a window for a picture that needs none."""
        if self.selection.window is not None:
            raise ImageError(f"{path}: has pixels from black to white, not values to choose a window of; leave out --window")


def planes_of(pixels: AnyArray) -> list[AnyArray]:
    """Pixels [H, W] or [H, W, C] as planes [H, W]: bytes as they are, other numbers as float32."""
    stacked = pixels[..., None] if pixels.ndim == 2 else pixels
    kind = np.uint8 if pixels.dtype == np.uint8 else np.float32
    return [np.ascontiguousarray(stacked[..., channel], dtype=kind) for channel in range(stacked.shape[-1])]
