"""Classes of extents: a handful of shapes that all batches of a variant have, each that of the largest regions in a class.

Static shapes for every position would be those of the worst. Positions are split by the extents of their regions into parts of
equal size, as the scheduler splits them into batches; each part is a class, and the largest regions of all are one more, so that
every position belongs to some class.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.choosing.choice import geometries
from kcompiler.passes.plan import Plan
from kcompiler.runtime.arrays import DoubleArray, IntArray
from kcompiler.runtime.bundle.variant import ExtentClass
from kcompiler.runtime.inference.schedule import Extents, schedule
from kcompiler.runtime.inputs.positions import make_grid

SAMPLED = 8192
"""Approximate number of positions that are split."""


def all_geometries(graph: gs.Graph, plan: Plan) -> list[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """:func:`geometries`, and the patch itself, which is no work, but whose extent classes have to cover as well."""
    image = plan.regions[plan.image]
    return [*geometries(graph, plan), (0.0, tuple(image.y.lengths.tolist()), tuple(image.x.lengths.tolist()))]


def extent_classes(extents: Extents, image: tuple[int, int], patch: tuple[int, int], count: int) -> tuple[ExtentClass, ...]:
    """Up to ``count`` classes for whole patches on an image of (height, width), and one for all patches there are."""
    positions = make_grid(image, patch, 1).positions
    sampled = positions[:: max(1, len(positions) // SAMPLED) | 1]  # odd, so that every alignment to the strides is sampled
    numbers = sampled - np.array(extents.first)
    parts = [numbers[part] for part in schedule(sampled, extents, -(-len(sampled) // count))]
    everywhere = np.arange(len(extents.y)), np.arange(len(extents.x))
    sides = [*((part[:, 0], part[:, 1]) for part in parts), everywhere]
    classes = (
        ExtentClass(rows=_largest(extents.y, y, extents.first[0]), columns=_largest(extents.x, x, extents.first[1]))
        for y, x in sides
    )
    return tuple(dict.fromkeys(classes))


def _largest(extents: DoubleArray, numbers: IntArray, first: int) -> tuple[int, ...]:
    """A few of ``numbers`` (indices of ``extents`` [places, geometries]) at which all geometries are largest, plus ``first``."""
    candidates = np.unique(numbers)
    attains = extents[candidates] == extents[candidates].max(axis=0)
    chosen: list[int] = []
    missing = np.ones(attains.shape[1], bool)
    while missing.any():
        best = int(attains[:, missing].sum(axis=1).argmax())
        chosen.append(int(candidates[best]) + first)
        missing &= ~attains[best]
    return tuple(sorted(chosen))
