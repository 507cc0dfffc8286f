"""Swin's attention inside windows: every other block moves them by half a window, so that neighbours meet.

Positions and masks are made from plain numbers, so an export holds them as constants.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.families.layers import attend

WINDOW = 7
"""Rows and columns of the windows that attention stays in."""

MASKED = -100.0
"""Added to the score of two places that share a window only because the map was rolled around its border."""


class WindowAttention(nn.Module):
    """Attention of the places of each window to one another; the windows lie ``shift`` rows and columns further."""

    def __init__(self, channels: int, heads: int, shift: int) -> None:
        super().__init__()
        self.heads, self.shift = heads, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", torch.tensor(_relative_positions()))

    def forward(self, maps: Tensor) -> Tensor:
        """[N, H, W, channels] to the same shape."""
        height, width, channels = (int(size) for size in maps.shape[1:])
        rows, columns = -(-height // WINDOW), -(-width // WINDOW)
        # Where one window holds all rows (or columns), there is nothing to move it to.
        shifts = (self.shift if rows > 1 else 0, self.shift if columns > 1 else 0)
        windows = _rolled(padded(maps, WINDOW), -shifts[0], -shifts[1])
        windows = windows.reshape(-1, rows, WINDOW, columns, WINDOW, channels).transpose(2, 3)
        windows = windows.reshape(-1, rows * columns, WINDOW * WINDOW, channels)
        windows = self.proj(attend(self.qkv(windows), self.heads, self._bias(rows, columns, shifts)))
        windows = windows.reshape(-1, rows, columns, WINDOW, WINDOW, channels).transpose(2, 3)
        attended = windows.reshape(-1, rows * WINDOW, columns * WINDOW, channels)
        return _rolled(attended, *shifts)[:, :height, :width]

    def _bias(self, rows: int, columns: int, shifts: tuple[int, int]) -> Tensor:
        """What the scores of each window are offset by, [windows or 1, heads, places, places]."""
        places = WINDOW * WINDOW
        by_position = self.relative_position_bias_table[self.relative_position_index]
        bias = by_position.reshape(places, places, self.heads).permute(2, 0, 1)[None]
        if not any(shifts):
            return bias
        row_parts, column_parts = _parts(rows, shifts[0]), _parts(columns, shifts[1])
        parts = [
            [(row, column) for row in of_rows for column in of_columns] for of_rows in row_parts for of_columns in column_parts
        ]
        mask = [[[0.0 if one == other else MASKED for other in window] for one in window] for window in parts]
        return bias + torch.tensor(mask).to(bias)[:, None]


def padded(maps: Tensor, multiple: int) -> Tensor:
    """[N, H, W, C] with zeros below and to the right, so that ``multiple`` divides H and W."""
    below, right = (-int(size) % multiple for size in maps.shape[1:3])
    return functional.pad(maps, (0, 0, 0, right, 0, below)) if below or right else maps


def _rolled(maps: Tensor, down: int, right: int) -> Tensor:
    return torch.roll(maps, (down, right), dims=(1, 2)) if down or right else maps


def _parts(windows: int, shift: int) -> list[list[int]]:
    """Of each place of each window along one axis: the piece of the map it is in, after rolling by ``shift``.

    The last window holds two pieces when the axis was rolled; all else is one.
    """
    last = [0] * (WINDOW - shift) + [1] * shift
    return [[0] * WINDOW] * (windows - 1) + [last]


def _relative_positions() -> list[int]:
    """Row of the bias table for each pair of places of a window, which depends on how far they are apart alone."""
    places = [(row, column) for row in range(WINDOW) for column in range(WINDOW)]
    span = 2 * WINDOW - 1
    return [(y - v + WINDOW - 1) * span + x - u + WINDOW - 1 for y, x in places for v, u in places]
