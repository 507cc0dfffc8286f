"""Model inputs: validates the caller's images and fills, and covers images."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs.elements import FLOAT32, Element
from kcompiler.runtime.inputs.fills import PatchFill, PictureFill, named

Shape = tuple[int, int, int]
Numbers = float | Sequence[float] | FloatArray
Fill = Numbers | str | PictureFill | PatchFill
"""A number, a number per channel, a picture [C, H, W], a name in ``fills.NAMED``, or an object that makes pictures or patches."""


def check_image(
    image: npt.ArrayLike, shape: Shape, layout: str = "NCHW", name: str = "image", element: Element = FLOAT32
) -> FloatArray:
    """Validates ``image`` and returns it as float32 [1, C, H, W].

    Args:
        image: float32, or of the source's type, [C, H, W] or [1, C, H, W], preprocessed; [H, W, C] or [1, H, W, C] where
            ``layout`` is "NHWC".
        shape: (C, H, W) that the model was compiled for.
        layout: layout of ``image``.
        name: name of the image in error messages.
        element: element type of the source: floats are rounded to it and to float32; whole numbers must be whole.

    Raises:
        ImageError: wrong type or shape, or a number that is not finite or not a value of the source's type; the message
            locates it.
    """
    array = np.asarray(image)
    if array.dtype not in (np.float32, element.dtype):
        kinds = "float32" if element == FLOAT32 else f"float32 or {element.name}"
        raise ImageError(f"{name}: is {array.dtype}, expected {kinds} in model units; preprocess it (Explainer.read_image does)")
    expected = shape if layout == "NCHW" else (*shape[1:], shape[0])
    if array.shape not in (expected, (1, *expected)):
        order = "channels, height, width" if layout == "NCHW" else "height, width, channels"
        raise ImageError(f"{name}: has shape {list(array.shape)}, expected {list(expected)} or {[1, *expected]} ({order})")
    array = array.reshape(1, *expected)
    laid_out = array if layout == "NCHW" else array.transpose(0, 3, 1, 2)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(laid_out, dtype=np.float32)
    wrong = np.argwhere(~np.isfinite(array[0]))
    if wrong.size:
        place = tuple(int(i) for i in wrong[0])
        raise ImageError(f"{name}: {len(wrong)} numbers are not finite, the first ({array[0][place]}) at channel, y, x = {place}")
    return element.checked(array[0], name, ImageError)[None]


def fill_image(fill: Numbers, shape: Shape) -> FloatArray:
    """The fill as a picture, float32 [C, H, W], from a number, a number per channel, or a picture (model units).

    Raises:
        UsageError: another shape, or a number that is not finite.
    """
    try:
        numbers = np.asarray(fill, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"fill is {fill!r}, expected one number or one for each of {shape[0]} channels") from error
    if numbers.shape not in ((), (1,), (shape[0],), shape):
        raise UsageError(
            f"fill has shape {list(numbers.shape)}, expected one number, one for each of {shape[0]} channels, or a picture "
            f"{list(shape)}"
        )
    if not np.isfinite(numbers).all():
        raise UsageError("fill is not finite")
    if numbers.shape == shape:
        return np.ascontiguousarray(numbers)
    return np.ascontiguousarray(np.broadcast_to(numbers.reshape(-1, 1, 1), shape))


def described_fill(fill: Fill, shape: Shape) -> tuple[float, ...] | str | None:
    """Describes ``fill`` for a record: a number per channel, its name or repr, or a picture's digest.

    None if the fill's class has no repr of its own: such a fill equals no other.
    """
    if isinstance(fill, str):
        return fill
    if isinstance(fill, PictureFill | PatchFill):
        return None if type(fill).__repr__ is object.__repr__ else repr(fill)
    picture = fill_image(fill, shape)
    colour = picture[:, 0, 0]
    if (picture == colour[:, None, None]).all():
        return tuple(colour.tolist())
    return f"picture {sha256(picture.tobytes()).hexdigest()[:16]}"


def covering(fill: Fill, image: FloatArray, channel: int | None = None, element: Element = FLOAT32) -> FloatArray | PatchFill:
    """Resolves ``fill`` for ``image`` [1, C, H, W] to a picture [C, H, W], or to a fill that makes patches.

    Args:
        channel: index of the only channel to cover; None covers all.
        element: element type of the source. Computed pictures are rounded to it; the caller's numbers must be values of it.

    Raises:
        UsageError: wrong shape or values, no such channel, or a fill that makes patches while ``channel`` is given.
    """
    resolved = named(fill) if isinstance(fill, str) else fill
    shape: Shape = image.shape[1:]
    if channel is not None and not (isinstance(channel, int | np.integer) and 0 <= channel < shape[0]):
        raise UsageError(f"channel is {channel!r}, expected 0 to {shape[0] - 1}")
    if isinstance(resolved, PatchFill):
        if channel is not None:
            raise UsageError(f"fill {fill!r} makes patches of all channels; to cover one channel, take numbers or a picture")
        return resolved
    if isinstance(resolved, PictureFill):
        picture = element.fitted(fill_image(resolved.picture(image[0]), shape))
    else:
        picture = element.checked(fill_image(resolved, shape), "fill", UsageError)
    if channel is None:
        return picture
    result: FloatArray = image[0].copy()
    result[channel] = picture[channel]
    return result


def cover(image: FloatArray, fill: FloatArray, positions: IntArray, patch: tuple[int, int]) -> FloatArray:
    """Covers ``image`` [1, C, H, W] with ``fill`` [C, H, W] at each position, cut off at the edges: float32 [N, C, H, W]."""
    covered = np.repeat(image, len(positions), axis=0)
    for copy, (y, x) in zip(covered, positions, strict=True):
        box = np.s_[:, max(y, 0) : max(y + patch[0], 0), max(x, 0) : max(x + patch[1], 0)]
        copy[box] = fill[box]
    return covered
