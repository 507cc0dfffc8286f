"""What must agree within a manifest: each field may be right by itself, and the whole describe no model.

A bundle may come from a stranger. What is checked here keeps the driver from computing for ever, or asking for all memory, by
numbers that no compiler wrote; what the graphs themselves ask for is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.bundle.variant import Variant
from kcompiler.runtime.inputs.recipe import Preprocessing

LARGEST_NUMBER = 1 << 64
LARGEST_EXTENT = 1 << 24
"""Most cells of a region along an axis."""
MOST_NUMBERS = 1 << 28
"""Of an image or of an output for one image: a gigabyte of float32."""
MOST_PATCHES = 64
MOST_VARIANTS = 256
"""For one patch and device."""
MOST_TUNED = 4096
Shape = tuple[int, int, int]


def wild_numbers(content: object, place: str = "") -> Iterator[str]:
    """Says which numbers in the JSON of a manifest are beyond 64 bits, or not finite."""
    if isinstance(content, Mapping):
        for name, inner in content.items():
            yield from wild_numbers(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(content, list):
        for number, inner in enumerate(content):
            yield from wild_numbers(inner, f"{place}.{number}")
    elif isinstance(content, float) and not math.isfinite(content):
        yield f"{place} is not finite"
    elif isinstance(content, int) and abs(content) >= LARGEST_NUMBER and place != "format":
        yield f"{place} has more than 64 bits"


def wrong_sizes(shape: Shape, patch: tuple[int, int], outputs: int) -> Iterator[str]:
    """Says what is wrong with the image (C, H, W), the patch and the numbers of outputs for one image."""
    if math.prod(shape) > MOST_NUMBERS or outputs > MOST_NUMBERS:
        yield f"shape is {list(shape)} and there are {outputs} outputs, expected at most {MOST_NUMBERS} numbers each"
    if any(side > size for side, size in zip(patch, shape[1:], strict=True)):
        yield f"patch is {list(patch)}, larger than the image, {list(shape[1:])}"


def wrong_variants(variants: Sequence[Variant], others: Sequence[Variant], shape: Shape, patch: tuple[int, int]) -> Iterator[str]:
    """Says what is wrong with the variants for a patch: those for the CPU, and ``others``, for other devices."""
    if any(variant.device != "cpu" for variant in variants) or any(variant.device == "cpu" for variant in others):
        yield "variants are those for the CPU, device_variants those for other devices"
    for device in dict.fromkeys(variant.device for variant in (*variants, *others)):
        on_it = [variant for variant in (*variants, *others) if variant.device == device]
        first, names = on_it[0], {variant.name for variant in on_it}
        approximate = first.node_thresholds or first.integers or first.frozen_gates or first.tf32 or first.threshold != 1
        if first.name != "exact" or approximate:
            yield f"the first variant for {device} is {first.name!r}, expected the exact one"
        if len(names) < len(on_it) or len(on_it) > MOST_VARIANTS:
            yield f"{len(on_it)} variants for {device} have {len(names)} names, expected a name each, {MOST_VARIANTS} at most"
    for variant in (*variants, *others):
        yield from _wrong_extents(variant, shape, patch)


def _wrong_extents(variant: Variant, shape: Shape, patch: tuple[int, int]) -> Iterator[str]:
    """Says where the extents of a variant's regions are not by the positions that a patch can have."""
    height, width = (size + side - 1 for size, side in zip(shape[1:], patch, strict=True))
    for number, geometry in enumerate(variant.geometries):
        found = len(geometry.heights), len(geometry.widths)
        if found != (height, width):
            yield f"variant {variant.name}: geometry {number} is of {found} rows and columns, expected {(height, width)}"
        elif max(*geometry.heights, *geometry.widths) > LARGEST_EXTENT or geometry.work < 0:
            yield f"variant {variant.name}: geometry {number} has work {geometry.work:g}, or extents above {LARGEST_EXTENT}"
    for one in variant.classes:
        for numbers, side, size in zip((one.rows, one.columns), patch, shape[1:], strict=True):
            if not all(1 - side <= number < size for number in numbers):
                yield f"variant {variant.name}: a class of extents is of {numbers[:3]}, where no patch lies"
    if (variant.index is None) != (not variant.classes):
        yield f"variant {variant.name}: an index model goes with classes of extents, and only with them"


def wrong_recipe(recipe: Preprocessing | None, shape: Shape, classes: int, *, two_classes: bool) -> Iterator[str]:
    """Says where a recipe is of another model."""
    if recipe is None:
        return
    if (recipe.channels, *recipe.size) != shape:
        yield f"preprocessing makes images of {[recipe.channels, *recipe.size]}, the model takes {list(shape)}"
    if recipe.labels and len(recipe.labels) != classes and not (two_classes and len(recipe.labels) == 2):
        yield f"preprocessing has {len(recipe.labels)} labels for {classes} classes"


def wrong_reduction(reduction: Reduction | None, classes: int) -> Iterator[str]:
    """Says where a reduction is of another output."""
    if reduction is None:
        return
    axes = len(reduction.shape)
    if not 0 <= reduction.axis < axes or reduction.numbers > MOST_NUMBERS:
        yield f"reduction is along axis {reduction.axis} of outputs {list(reduction.shape)}"
        return
    if reduction.classes != classes:
        yield f"reduction leaves {reduction.classes} classes, expected {classes}"
    if (reduction.over == "box") != (reduction.box is not None):
        yield "reduction has a box where it is over a box, and only there"
    if reduction.box is not None:
        sides = [size for axis, size in enumerate(reduction.shape) if axis != reduction.axis]
        first, last = reduction.box[: len(sides)], reduction.box[len(sides) :]
        if len(last) != len(sides) or not all(0 <= a < b <= size for a, b, size in zip(first, last, sides, strict=True)):
            yield f"reduction is over the box {list(reduction.box)} of {sides} cells"
