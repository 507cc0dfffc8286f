"""Model inputs: checking what the caller hands over, and covering it."""

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
"""What covers: one number, or one a channel; a picture [C, H, W]; a name of ``fills.NAMED``; what makes pictures or patches."""


def check_image(
    image: npt.ArrayLike, shape: Shape, layout: str = "NCHW", name: str = "image", element: Element = FLOAT32
) -> FloatArray:
    """``image`` as float32 [1, C, H, W].

    Args:
        image: float32, or of the source's type, [C, H, W] or [1, C, H, W], preprocessed; [H, W, C] or [1, H, W, C] where
            ``layout`` is "NHWC".
        shape: (C, H, W) that the model was compiled for.
        layout: of ``image``.
        name: what to call it in errors.
        element: type that the source takes: floats are rounded to it, and to float32; whole numbers must be whole.

    Raises:
        ImageError: another type, another shape, or a number that is not finite or not of the source's type; the message says
            where.
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
    """The picture that shows through the patch, float32 [C, H, W], from numbers: one, one a channel, or all (model units).

    Raises:
        UsageError: another count of numbers, or one that is not finite.
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
    """``fill`` for a record: one number a channel, its name, or a picture's digest.

    None is a fill that nothing tells from others of its class: it is not known to be the same as any.
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
    """What covers ``image`` [1, C, H, W]: a picture [C, H, W], or what makes patches.

    Args:
        channel: the only one that is covered; None covers all.
        element: type that the source takes. Pictures that are made are rounded to it; numbers that are given must be whole
            where it is.

    Raises:
        UsageError: the fill does not fit, is not of the source's type, or makes patches where only a channel is to be covered.
    """
    made = named(fill) if isinstance(fill, str) else fill
    shape: Shape = image.shape[1:]
    if channel is not None and not (isinstance(channel, int | np.integer) and 0 <= channel < shape[0]):
        raise UsageError(f"channel is {channel!r}, expected 0 to {shape[0] - 1}")
    if isinstance(made, PatchFill):
        if channel is not None:
            raise UsageError(f"fill {fill!r} makes patches of all channels; to cover one channel, take numbers or a picture")
        return made
    if isinstance(made, PictureFill):
        picture = element.fitted(fill_image(made.picture(image[0]), shape))
    else:
        picture = element.checked(fill_image(made, shape), "fill", UsageError)
    if channel is None:
        return picture
    result: FloatArray = image[0].copy()
    result[channel] = picture[channel]
    return result


def cover(image: FloatArray, fill: FloatArray, positions: IntArray, patch: tuple[int, int]) -> FloatArray:
    """The image covered at each position, as far as the patch lies in it: float32 [N, C, H, W]."""
    covered = np.repeat(image, len(positions), axis=0)
    for one, (y, x) in zip(covered, positions, strict=True):
        part = np.s_[:, max(y, 0) : max(y + patch[0], 0), max(x, 0) : max(x + patch[1], 0)]
        one[part] = fill[part]
    return covered
