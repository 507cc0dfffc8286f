"""Options that several commands share, and the parsers of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inputs.files import check_file
from kcompiler.runtime.maps.style import DIVERGING

Value = bool | float | str | Sequence[Any] | AnyArray
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
InputShape = Annotated[str | None, typer.Option(metavar="C,H,W", help="Size to compile for, where the model leaves it open.")]
Layout = Annotated[
    Literal["NCHW", "NHWC"] | None, typer.Option(help="Order of the axes of the model's image, where the model does not tell.")
]
Bind = Annotated[
    list[str] | None,
    typer.Option(
        "--bind",
        metavar="NAME=VALUE",
        help="Value of an input beside the image: a number, true or false, numbers with commas, or array.npy; repeatable.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(help="Output to explain, where the model has several made of different numbers; or a tensor inside the graph."),
]
Reduce = Annotated[
    Literal["mean", "max", "sum"] | None,
    typer.Option(
        help="Of a dense output (segmentation, rows, sequences), make one number a class: over all axes but the classes'."
    ),
]
ReduceOver = Annotated[
    Literal["everything", "class"],
    typer.Option(help="What --reduce goes over: all cells, or those that the uncovered image gives each class."),
]
ReduceBox = Annotated[
    str | None,
    typer.Option(
        metavar="TOP,LEFT,BOTTOM,RIGHT", help="A box that --reduce goes over, in cells of the output; rows: FIRST,LAST."
    ),
]
ClassAxis = Annotated[
    int | None, typer.Option(help="Axis of the classes that --reduce keeps, the batch being 0, where it is not the one found.")
]
Patch = Annotated[str, typer.Option(metavar="P | HxW", help="Patch in pixels: a side, or height x width.")]
Provider = Annotated[
    list[str] | None, typer.Option(help="ONNX Runtime provider (cpu, cuda, or its full name); repeat for several.")
]
OfPatch = Annotated[
    str | None,
    typer.Option("--patch", metavar="P | HxW", help="Of those that the bundle is compiled for (default: the first)."),
]
CompiledFor = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option(help="Run the variants for this device, whatever the provider (default: the provider's device)."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="CPU threads that work at once, of each process or actor if there are several (default: one a physical core)."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Share the work among actors on the Ray cluster at HOST:PORT; without an address, on that of this machine, "
        "or one started for the call.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        help="Share the work among this many processes of this machine; with --ray, this many actors (default: all fit)."
    ),
]
Calibrate = Annotated[bool, typer.Option("--calibrate", help="Measure the algorithms on this machine, to choose the fastest.")]
ScoreOption = Annotated[
    Literal["auto", "output", "logit", "drop"],
    typer.Option(
        help="What is scored: logit before the final softmax or sigmoid, output, or drop; auto: logit where there is one."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(help="Output to explain: index or label; 8,0 in a dense output. Default: the largest for each image."),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range", metavar="LOW,HIGH", help="Drops at the ends of the colour scale, to compare maps by; or one number for both."
    ),
]
Colours = Annotated[str, typer.Option(help=f"Colour map: {', '.join(DIVERGING)}; _r after it swaps its ends.")]
Opacity = Annotated[float, typer.Option(help="Opacity of the strongest colour.")]
Outline = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Draw a contour around this share of the pixels: the largest drops.")
]
FillOption = Annotated[
    str | None,
    typer.Option(
        "--fill",
        metavar="V | R,G,B | NAME | FILE",
        help="What covers: a colour in pixel values; mean, blur, noise, patch-mean, marginal or conditional; or a picture. "
        "Default: 0 in model units.",
    ),
]
StrideOption = Annotated[str, typer.Option("--stride", metavar="S | SYxSX", help="Pixels between neighbouring positions.")]
EdgesOption = Annotated[
    Literal["valid", "inward", "cut", "centred"],
    typer.Option(help="Last patch: only valid ones; moved inward; cut off; or centred on every stride-th pixel and cut off."),
]
Model = Annotated[Path, typer.Argument(help="ONNX model.", show_default=False)]
BundlePath = Annotated[Path, typer.Argument(help="Compiled bundle (a folder).", show_default=False)]


def whole_numbers(text: str, option: str, separators: str = ",x") -> tuple[int, ...]:
    """Parses "3,224,224" or "8x40" as numbers.

    Raises:
        UsageError: anything else.
    """
    for separator in separators[1:]:
        text = text.replace(separator, separators[0])
    try:
        return tuple(int(part) for part in text.split(separators[0]))
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}, expected whole numbers separated by commas") from error


def patch_size(text: str) -> tuple[int, int]:
    """Parses "16" or "8x40" as (height, width)."""
    numbers = whole_numbers(text, "--patch")
    if len(numbers) > 2:
        raise UsageError(f"--patch is {text!r}, expected one number or height x width")
    return numbers[0], numbers[-1]


def of_patch(text: str | None) -> tuple[int, int] | None:
    """Parses a patch; None stays."""
    return None if text is None else patch_size(text)


def stride(text: str) -> tuple[int, int] | int:
    """Parses "4" or "4x8" as a stride, a number or (y, x)."""
    numbers = whole_numbers(text, "--stride")
    if len(numbers) > 2:
        raise UsageError(f"--stride is {text!r}, expected one number, or one for y and one for x")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def reduce_box(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else whole_numbers(text, "--reduce-box", ",")


def input_shape(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else whole_numbers(text, "--input-shape")


def bound(texts: list[str] | None) -> dict[str, Value]:
    """Parses "age=57", "training=false", "box=0,0,1,1" or "features=array.npy" to values by input name.

    Raises:
        UsageError: a missing name or value, a name that occurs twice, or an array that cannot be read.
    """
    values: dict[str, Value] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--bind is {text!r}, expected NAME=VALUE, for example --bind age=57")
        if name in values:
            raise UsageError(f"--bind gives {name} two values; expected one")
        values[name] = _value(value)
    return values


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.endswith(".npy"):
        check_file(Path(text), "an array (.npy)", UsageError)
        with foreign(lambda why: UsageError(f"--bind: {text} is not a readable .npy array ({why})")):
            array: AnyArray = np.load(text, allow_pickle=False)
        return array
    numbers = [_number(part) for part in text.split(",")]
    if any(number is None for number in numbers):
        return text
    return numbers if len(numbers) > 1 else numbers[0]  # type: ignore[return-value]


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
