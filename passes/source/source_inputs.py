"""The inputs of a source: identifies the image, and binds values to the others.

Every input but the image has a value: that bound to it by name, else the initializer of its name (its default). An input without
readers gets zeros, since ONNX Runtime requires a feed for it, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from kcompiler.passes.source.bodies import read_names
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ModelError, UsageError

Value = bool | float | str | Sequence[Any] | AnyArray
"""Types that may be bound: a number, a boolean, a string, or an array (or nested lists) of them."""
IMAGE_AXES = 4
PICTURE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a source.

    Attributes:
        image: the image input.
        bound: bound values by input name, in the inputs' own types and shapes.
        unread: zeros for inputs without readers, by name.
    """

    image: onnx.ValueInfoProto
    bound: Mapping[str, AnyArray]
    unread: Mapping[str, AnyArray]


def find_inputs(path: Path, graph: onnx.GraphProto, bind: Mapping[str, Value], *, sized: bool) -> Inputs:
    """Identifies the image input, and converts the values of the others.

    Args:
        path: of the model, for messages.
        graph: of the model.
        bind: values by input name.
        sized: whether the user gives the image's size, so that an input of unknown rank may be the image.

    Raises:
        ModelError: there is no image, or an input has neither a value nor a default.
        UsageError: a value is bound to an input that does not exist, or does not fit it.
    """
    inputs = {value.name: value for value in graph.input}
    unknown = [name for name in bind if name not in inputs]
    if unknown:
        raise UsageError(f"{path}: has no input {unknown[0]!r} to bind; its inputs are {described(inputs.values())}")
    defaults = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    open_inputs = [value for value in graph.input if value.name not in defaults and value.name not in bind]
    image = _image(path, open_inputs, graph, sized=sized)
    read = read_names(graph)
    others = [value for value in open_inputs if value.name != image.name]
    unbound = [value for value in others if value.name in read]
    if unbound:
        raise ModelError(
            f"{path}: beside the image {image.name} {dims(image)} it reads {described(unbound)}; say what to compile it for: "
            + " ".join(f"--bind {value.name}={_example(value)}" for value in unbound)
        )
    batch = [dims(image)[0]] if len(dims(image)) == IMAGE_AXES else []
    bound = {name: bound_value(path, inputs[name], value, batch) for name, value in bind.items()}
    return Inputs(image, bound, {value.name: _zeros(path, value) for value in others})


def _image(path: Path, candidates: Sequence[onnx.ValueInfoProto], graph: onnx.GraphProto, *, sized: bool) -> onnx.ValueInfoProto:
    """The only input of four axes, or of three axes as of a picture; else the only input of unknown rank, if ``sized``."""
    images = [value for value in candidates if _has_shape(value) and len(dims(value)) == IMAGE_AXES]
    shapeless = [
        value for value in candidates if value.type.WhichOneof("value") in (None, "tensor_type") and not _has_shape(value)
    ]
    if not images and not shapeless:
        images = [value for value in candidates if _has_shape(value) and _is_picture(dims(value))]
    if len(images) > 1:
        read = read_names(graph)
        images = [value for value in images if value.name in read] or images
    if not images and len(shapeless) == 1:
        if sized:
            return shapeless[0]
        raise ModelError(
            f"{path}: input {shapeless[0].name} has no shape; say which size to compile for, for example --input-shape 3,224,224"
        )
    if not images:
        raise ModelError(
            f"{path}: expected an input that is an image, [N, C, H, W] or [N, H, W, C], or without N with 1, 3 or 4 channels; "
            f"found {len(graph.input)}: {described(graph.input)}"
        )
    if len(images) > 1:
        raise ModelError(
            f"{path}: {len(images)} inputs have the four axes of an image: {described(images)}; bind all but the one to "
            f"explain, for example --bind {images[-1].name}=array.npy"
        )
    return images[0]


def _is_picture(sizes: Sequence[int | str]) -> bool:
    """Whether these are three axes with 1, 3 or 4 channels, first or last."""
    return len(sizes) == IMAGE_AXES - 1 and (sizes[0] in PICTURE_CHANNELS or sizes[-1] in PICTURE_CHANNELS)


def bound_value(path: Path, value: onnx.ValueInfoProto, given: Value, batch: Sequence[int | str]) -> AnyArray:
    """``given`` converted to the type and shape of the input ``value``.

    A scalar fills the input, whose open axes get size 1. An array must have the input's axes; the first axis may be omitted where
    it is 1, open, or the image's ``batch``.

    Raises:
        UsageError: it does not fit.
    """
    if value.type.WhichOneof("value") != "tensor_type":
        raise UsageError(f"{path}: input {value.name} is {value.type.WhichOneof('value')}, only tensors can be bound")
    array = _typed(path, value, given)
    if not _has_shape(value):
        return array
    sizes = dims(value)
    expected = f"{_type_name(value)} {sizes}"
    if array.ndim == 0:
        places = [size if isinstance(size, int) and size > 0 else 1 for size in sizes]
        return np.full(places, array[()], dtype=array.dtype)
    if array.ndim == len(sizes) - 1 and (not isinstance(sizes[0], int) or sizes[0] <= 1):
        array = array[None]
    fits = array.ndim == len(sizes) and all(
        not isinstance(size, int) or size < 1 or size == actual for size, actual in zip(sizes, array.shape, strict=True)
    )
    if not fits:
        raise UsageError(f"{path}: input {value.name} is {expected}, the value bound to it has shape {list(np.shape(given))}")
    if batch and sizes and isinstance(batch[0], str) and batch[0] not in ("", "?") and sizes[0] == batch[0] and len(array) != 1:
        raise UsageError(
            f"{path}: input {value.name} is {expected}, a row for each image, the value bound to it has {len(array)} rows; "
            "expected 1"
        )
    return array


def _typed(path: Path, value: onnx.ValueInfoProto, given: Value) -> AnyArray:
    """``given`` as an array of the input's element type."""
    name = _type_name(value)
    if value.type.tensor_type.elem_type == TensorProto.STRING:
        return np.asarray(given, dtype=object)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    try:
        array = np.asarray(given)
        typed = array.astype(dtype)
        same = array.dtype.kind in "biuf" and _same(array, typed)
    except (TypeError, ValueError, OverflowError):
        same = False
    if not same:
        shown = given if np.size(given) <= 8 else f"an array of {np.asarray(given).dtype}"
        raise UsageError(f"{path}: input {value.name} is {name} {dims(value)}, which cannot hold {shown!r}")
    return typed


def _same(array: AnyArray, typed: AnyArray) -> bool:
    """Whether a cast preserved the values: integers and booleans exactly, floats up to rounding (finite stays finite)."""
    if typed.dtype.kind in "biu":
        return bool(np.array_equal(array.astype(np.float64), typed.astype(np.float64)))
    return bool(np.array_equal(np.isfinite(array.astype(np.float64)), np.isfinite(typed.astype(np.float64))))


def _zeros(path: Path, value: onnx.ValueInfoProto) -> AnyArray:
    if value.type.WhichOneof("value") != "tensor_type":
        raise ModelError(
            f"{path}: input {value.name} is {value.type.WhichOneof('value')}, which cannot be fed, though nothing reads it; "
            "take it out of the model"
        )
    places = [size if isinstance(size, int) and size > 0 else 1 for size in dims(value)]
    if value.type.tensor_type.elem_type == TensorProto.STRING:
        return np.full(places, "", dtype=object)
    return np.zeros(places, dtype=helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"))


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    """Declared sizes; "?" for open sizes, which some exporters write as 0 or negative."""
    axes = value.type.tensor_type.shape.dim
    return [(dim.dim_value if dim.dim_value > 0 else "?") if dim.HasField("dim_value") else dim.dim_param or "?" for dim in axes]


def described(values: Any) -> str:
    """Inputs with their shapes, for messages."""
    return ", ".join(f"{value.name} {dims(value)}" for value in values) or "none"


def _type_name(value: onnx.ValueInfoProto) -> str:
    return type_name(value.type.tensor_type.elem_type)


def type_name(number: int) -> str:
    """The name of an element type; its number where ONNX has none of it."""
    return str(TensorProto.DataType.Name(number)) if number in TensorProto.DataType.values() else f"type {number}"


def _example(value: onnx.ValueInfoProto) -> str:
    if value.type.tensor_type.elem_type == TensorProto.BOOL:
        return "false"
    if value.type.tensor_type.elem_type == TensorProto.STRING:
        return "TEXT"
    return "1" if all(not isinstance(size, int) or size <= 1 for size in dims(value)) else f"{value.name}.npy"
