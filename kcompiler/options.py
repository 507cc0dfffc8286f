"""Compile options, and their validation against the model."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from pydantic import ValidationError

from kcompiler.passes.normalising.reduce import Reducing
from kcompiler.passes.regions.propagate import EXACT, Thresholds
from kcompiler.passes.source.image_layout import Layout
from kcompiler.passes.source.load import Source
from kcompiler.passes.source.source_inputs import Value
from kcompiler.runtime.bundle.reduction import How, Over
from kcompiler.runtime.bundle.variant import DeviceName
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.preprocessing import Preprocessing
from kcompiler.runtime.inputs.recipes import recipe_by


@dataclass(frozen=True, slots=True)
class Approximation:
    """An approximate variant: caps on its regions, and whether it may use 8-bit integer products."""

    thresholds: Thresholds = EXACT
    integers: bool = False

    @property
    def name(self) -> str:
        """The variant's name, also used in file names; thresholds by node are represented by a digest."""
        parts = [f"tau{_text(self.thresholds.everywhere)}"] if self.thresholds.everywhere != 1 or self.thresholds.nodes else []
        if self.thresholds.nodes:
            parts.append(_digest(repr(sorted(self.thresholds.nodes.items()))))
        if self.thresholds.freeze_gates:
            parts.append("gates")
        return ".".join([*parts, "int8"] if self.integers else parts) or "exact"


def _text(share: float) -> str:
    """A number as a part of a file name: its digits, or a digest if six digits do not represent it exactly."""
    text = f"{share:g}"
    return text if float(text) == share and "e" not in text else _digest(repr(share))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a compilation.

    Attributes:
        patch: (height, width) in pixels.
        input_shape: ([1,] C, H, W) where the model leaves sizes open.
        layout: layout of the image input, "NCHW" or "NHWC", where it does not follow from the model.
        bind: values of the inputs other than the image, by name.
        output: name of the output to explain, where the model has several.
        reducing: how to reduce a dense output to a number per class.
        extents: "tight" (the extent that each batch needs), "static" (that of the worst position, in constant shapes), or
            "classes" (those of a class of positions), which variants for other devices than the CPU have.
        convolution: "auto" or "direct" (no transformed-domain convolutions).
        preprocessing: recipe for reading pictures, and labels.
        recipe_by: in its place, what gives the recipe for the model's shape (C, H, W).
        calibrate: whether to measure the convolution algorithms on this machine, instead of predicting their time.
        threads: CPU threads while calibrating; None is as many as physical cores.
        dense_share: a node runs dense if its mean region covers more than this share of its map; None decides by predicted times.
        approximations: approximate variants to compile beside the exact one.
        prefer: preferred lowering by operator or node name, where it applies.
        device: what to compile for beside the CPU; "cpu" for nothing else.
        precision: "tf32" adds approximate variants for the device, whose products round their operands to TF32.
        further: patches, (height, width) each, to compile for beside ``patch``.
        is_further: whether ``patch`` is one of those, as their files are named by it.
    """

    patch: tuple[int, int]
    input_shape: tuple[int, ...] | None = None
    layout: Layout | None = None
    bind: Mapping[str, Value] = field(default_factory=dict)
    output: str | None = None
    reducing: Reducing | None = None
    extents: Literal["tight", "static", "classes"] = "tight"
    convolution: Literal["auto", "direct"] = "auto"
    preprocessing: Preprocessing | None = None
    recipe_by: Callable[[tuple[int, int, int]], Preprocessing] | None = None
    calibrate: bool = False
    threads: int | None = None
    dense_share: float | None = None
    approximations: tuple[Approximation, ...] = ()
    prefer: Mapping[str, str] = field(default_factory=dict)
    device: DeviceName = "cpu"
    precision: Literal["float32", "tf32"] = "float32"
    further: tuple[tuple[int, int], ...] = ()
    is_further: bool = False

    @property
    def of_further(self) -> Iterator[Options]:
        """These options for each of the further patches."""
        return (replace(self, patch=patch, further=(), is_further=True) for patch in self.further)


def with_recipe(source: Source, options: Options) -> Options:
    """The options with the recipe for the model's image.

    Raises:
        UsageError: there is none for its shape.
    """
    if options.recipe_by is None:
        return options
    try:
        return replace(options, preprocessing=options.recipe_by(source.shape), recipe_by=None)
    except ValidationError as error:
        raise UsageError(f"the preprocessing does not fit {source.path}, which takes {list(source.shape)}") from error


def check_options(source: Source, options: Options) -> None:
    """Checks options against the model, and the range of settings.

    Raises:
        UsageError: a setting is out of range, the patch is larger than the image, or the preprocessing makes inputs of another
            shape or element type than the model's.
    """
    thresholds = [approximation.thresholds for approximation in options.approximations]
    for share in (share for caps in thresholds for share in (caps.everywhere, *caps.nodes.values())):
        if not 0 < share <= 1:
            raise UsageError(f"threshold is {share}, expected a share of each map above 0, up to 1")
    for name, value, choices in (
        ("extents", options.extents, ("tight", "static")),
        ("convolution", options.convolution, ("auto", "direct")),
        ("device", options.device, ("cpu", "cuda")),
        ("precision", options.precision, ("float32", "tf32")),
    ):
        if value not in choices:
            raise UsageError(f"{name} is {value!r}, expected {' or '.join(map(repr, choices))}")
    if options.precision != "float32" and options.device == "cpu":
        raise UsageError(f"precision {options.precision} is of CUDA devices; add --device cuda")
    _, height, width = source.shape
    patches = (options.patch, *options.further)
    for patch in patches:
        if not (1 <= patch[0] <= height and 1 <= patch[1] <= width):
            raise UsageError(
                f"patch {list(patch)} does not fit the image {[height, width]} of {source.path}; expected 1 up to its size"
            )
    if len(set(patches)) < len(patches):
        raise UsageError(f"patches {[list(patch) for patch in patches]}: one of them occurs twice")
    if options.preprocessing is not None:
        _check_recipe(source, options.preprocessing)


def _check_recipe(source: Source, recipe: Preprocessing) -> None:
    """Checks that the recipe makes inputs of the model's shape, and whole numbers if the model takes these."""
    shape = [recipe.channels, *recipe.size]
    if shape != [*source.shape]:
        raise UsageError(
            f"preprocessing makes inputs {shape} (channels, height, width), {source.path} takes {list(source.shape)}; "
            + _mended(recipe, source)
        )
    if not source.element.whole:
        return
    pixels = recipe.normalise(np.repeat(np.arange(256)[:, None], recipe.channels, axis=1))
    wrong = np.argwhere(source.element.fitted(pixels) != pixels)
    if wrong.size:
        pixel, channel = wrong[0]
        raise UsageError(
            f"preprocessing makes {pixels[pixel, channel]:.4g} of the pixel {pixel} (channel {channel}), {source.path} takes "
            f"{source.element.name}, expected whole numbers from {source.element.bounds[0]} to {source.element.bounds[1]}; "
            "pixels as they are have scale 1, mean 0 and std 1"
        )


def _mended(recipe: Preprocessing, source: Source) -> str:
    """What would make inputs of the model's shape."""
    channels, *size = source.shape
    if recipe.channels == channels:
        return f'say "size": {size} in it'
    orders = {1: '"gray"', 3: '"RGB" or "BGR"'}.get(channels)
    return f'say "channel_order": {orders} in it' if orders else f"pictures have 1 or 3 channels, not {channels}: leave it out"


def check_labels(options: Options, classes: int, *, two_classes: bool = False) -> None:
    """Checks that there are no labels, or a label per output; or two labels, if a single output scores ``two_classes``.

    Raises:
        UsageError: another number of labels.
    """
    labels = options.preprocessing.labels if options.preprocessing is not None else ()
    if labels and len(labels) != classes and not (two_classes and len(labels) == 2):
        raise UsageError(
            f"preprocessing has {len(labels)} labels, the model puts out {classes} numbers; expected one label each, or none"
            + (" (or two: one sigmoid output is two classes)" if two_classes else "")
        )


def options_of(
    *,
    patch: int | tuple[int, int] | list[int | tuple[int, int]],
    input_shape: Sequence[int] | None = None,
    bind: Mapping[str, Value] | None = None,
    reduce: How | None = None,
    reduce_over: Over = "everything",
    reduce_box: Sequence[int] | None = None,
    class_axis: int | None = None,
    thresholds: Sequence[float | Mapping[str, float]] = (),
    int8: bool = False,
    freeze_gates: bool = False,
    preprocessing: Preprocessing | str | Path | None = None,
    **others: Any,
) -> Options:
    """The arguments of :func:`kcompiler.compile` as options; ``others`` are options as they are.

    Raises:
        UsageError: an argument is out of its range, or two do not go together.
    """
    if isinstance(patch, list) and not patch:
        raise UsageError("patch is an empty list, expected a side, (height, width), or several")
    first, *further = map(_pair, patch) if isinstance(patch, list) else [_pair(patch)]
    named = recipe_by(preprocessing) if isinstance(preprocessing, (str, Path)) else None
    return Options(
        patch=first,
        further=tuple(further),
        input_shape=_whole_numbers("input_shape", input_shape) if input_shape is not None else None,
        bind=dict(bind or {}),
        reducing=reducing(reduce, reduce_over, reduce_box, class_axis),
        approximations=_approximations(thresholds, int8=int8, freeze_gates=freeze_gates),
        preprocessing=preprocessing if isinstance(preprocessing, Preprocessing) else None,
        recipe_by=named,
        **others,
    )


def _approximations(
    shares: Sequence[float | Mapping[str, float]], *, int8: bool, freeze_gates: bool
) -> tuple[Approximation, ...]:
    capped = [Thresholds(nodes=dict(share)) if isinstance(share, Mapping) else Thresholds(float(share)) for share in shares]
    frozen = [replace(thresholds, freeze_gates=True) for thresholds in (EXACT, *capped)] if freeze_gates else []
    integers = [Approximation(thresholds, integers=True) for thresholds in (EXACT, *capped, *frozen)] if int8 else []
    return (*(Approximation(thresholds) for thresholds in (*capped, *frozen)), *integers)


def _pair(patch: int | tuple[int, int]) -> tuple[int, int]:
    sizes = _whole_numbers("patch", (patch, patch) if np.ndim(patch) == 0 else patch)
    if len(sizes) != 2:
        raise UsageError(f"patch is {patch!r}, expected a side or (height, width)")
    return sizes[0], sizes[1]


def _whole_numbers(name: str, values: object) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)  # type: ignore[attr-defined]
    except TypeError as error:
        raise UsageError(f"{name} is {values!r}, expected whole numbers") from error


def reducing(how: str | None, over: str, box: Sequence[int] | None, class_axis: int | None) -> Reducing | None:
    """The reduction of a dense output from separate options; None if there is none.

    Raises:
        UsageError: an option is out of range, or options contradict each other.
    """
    if how is None:
        if over != "everything" or box is not None or class_axis is not None:
            raise UsageError(
                "--reduce-over, --reduce-box and --class-axis say what --reduce is to do; add --reduce mean, max or sum"
            )
        return None
    if box is not None and over != "everything":
        raise UsageError(f"--reduce-box and --reduce-over {over} exclude each other; leave one out")
    if how not in get_args(How) or over not in ("everything", "class"):
        raise UsageError(f"--reduce {how} --reduce-over {over}: expected mean, max or sum, over everything or class")
    return Reducing(cast(How, how), cast(Over, over), tuple(box) if box is not None else None, class_axis)
