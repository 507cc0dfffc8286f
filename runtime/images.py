"""Model inputs: checking what the caller hands over, and covering it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.errors import ImageError, UsageError

FloatArray = npt.NDArray[np.float32]
Shape = tuple[int, int, int]
Fill = float | Sequence[float] | FloatArray


def check_image(image: npt.ArrayLike, shape: Shape, layout: str = "NCHW", name: str = "image") -> FloatArray:
    """``image`` as float32 [1, C, H, W].

    Args:
        image: float32 [C, H, W] or [1, C, H, W], preprocessed; [H, W, C] or [1, H, W, C] where ``layout`` is "NHWC".
        shape: (C, H, W) that the model was compiled for.
        layout: of ``image``.
        name: what to call it in errors.

    Raises:
        ImageError: another type, another shape, or a number that is not finite; the message says where.
    """
    array = np.asarray(image)
    if array.dtype != np.float32:
        raise ImageError(f"{name}: is {array.dtype}, expected float32 in model units; preprocess it (Explainer.read_image does)")
    expected = shape if layout == "NCHW" else (*shape[1:], shape[0])
    if array.shape not in (expected, (1, *expected)):
        order = "channels, height, width" if layout == "NCHW" else "height, width, channels"
        raise ImageError(f"{name}: has shape {list(array.shape)}, expected {list(expected)} or {[1, *expected]} ({order})")
    array = array.reshape(1, *expected)
    array = np.ascontiguousarray(array if layout == "NCHW" else array.transpose(0, 3, 1, 2))
    wrong = np.argwhere(~np.isfinite(array[0]))
    if wrong.size:
        place = tuple(int(i) for i in wrong[0])
        raise ImageError(f"{name}: {len(wrong)} numbers are not finite, the first ({array[0][place]}) at channel, y, x = {place}")
    return array


def fill_image(fill: Fill, shape: Shape) -> FloatArray:
    """The picture that shows through the patch, float32 [C, H, W], from one number or one number a channel (model units).

    Raises:
        UsageError: another count of numbers, or one that is not finite.
    """
    try:
        numbers = np.asarray(fill, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"fill is {fill!r}, expected one number or one for each of {shape[0]} channels") from error
    if numbers.shape not in ((), (1,), (shape[0],)):
        raise UsageError(f"fill has shape {list(numbers.shape)}, expected one number or one for each of {shape[0]} channels")
    if not np.isfinite(numbers).all():
        raise UsageError(f"fill {numbers.tolist()} is not finite")
    return np.ascontiguousarray(np.broadcast_to(numbers.reshape(-1, 1, 1), shape))


def plain_fill(fill: Fill, shape: Shape) -> tuple[float, ...] | None:
    """``fill`` as one number a channel; None if it is not that plain."""
    picture = fill_image(fill, shape)
    colour = picture[:, 0, 0]
    return tuple(colour.tolist()) if (picture == colour[:, None, None]).all() else None


def cover(image: FloatArray, fill: FloatArray, positions: npt.NDArray[np.int64], patch: tuple[int, int]) -> FloatArray:
    """The image covered at each position, as far as the patch lies in it: float32 [N, C, H, W]."""
    covered = np.repeat(image, len(positions), axis=0)
    for one, (y, x) in zip(covered, positions, strict=True):
        part = np.s_[:, max(y, 0) : max(y + patch[0], 0), max(x, 0) : max(x + patch[1], 0)]
        one[part] = fill[part]
    return covered
