"""Convolution by minimal filtering (Winograd) over tiles of each region: Gather, MatMul, one batched MatMul, MatMul.

It is the change that is convolved, the updated minus the cached input, and added to the cached output. Outside of the
region there is no change, so nothing is read around it; and the rounding that the transforms amplify is relative to the
change, which deep in a network is a small part of the activations. Where outputs far outnumber inputs, the values
themselves may be convolved instead: that reads no cached output, for more rounding.

The tiles' input cells are gathered element by element of the tile, so both transforms are plain matrix products, and the
products of all elements one 3-D MatMul. The output stays in tile order: later reads address any order of rows.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.lowering.filtering import LARGEST, Filtering, filtering
from kcompiler.passes.lowering.layout import Layout, Surroundings
from kcompiler.passes.lowering.operand import Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering, Windows
from kcompiler.passes.lowering.tiles import added_to_cached, apply_along_both
from kcompiler.passes.lowering.work import Shape, Work

SQUARE = (2, 3, 4, 5, 6, 7)
"""Tile sizes along an axis that has more than one tap."""
WIDER = 2
"""Values are convolved to at least so many outputs for each input, 0.9 of the time; to fewer it is 0.95, less than the room for
rounding is worth elsewhere."""
VALUES = 3.0
"""Values over changes of the inputs, as rounding of the outputs shows it: 1.7 (GoogLeNet) to 2.8 (VGG16)."""


def algorithms(windows: Windows, size: int) -> tuple[Filtering, Filtering]:
    """The (y, x) algorithms for tiles of ``size`` outputs along every axis with more than one tap."""
    y, x = (filtering(size if window.kernel > 1 else 1, window.kernel, window.stride) for window in windows)
    return y, x


def _applies(size: int, node: gs.Node, windows: Windows) -> bool:
    """Ungrouped, undilated, with taps to save products on, and with enough interpolation points for them."""
    return (
        node.attrs.get("group", 1) == 1
        and all(window.dilation == 1 and window.stride <= window.kernel for window in windows)
        and any(window.kernel > max(window.stride, 1) for window in windows)
        and all(size + -(-window.kernel // window.stride) - 1 <= LARGEST for window in windows)
    )


def _widens(size: int, node: gs.Node, windows: Windows) -> bool:
    outputs, inputs = node.inputs[1].shape[:2]
    return bool(outputs >= WIDER * inputs) and _applies(size, node, windows)


def _work(size: int, shape: Shape) -> Work:
    """Cached inputs are gathered and subtracted, cached outputs gathered and added."""
    return _transformed(size, shape) + Work(
        moved=6 * shape.cells * shape.channels + 4 * _written(size, shape), nodes=14 / shape.batch
    )


def _work_of_values(size: int, shape: Shape) -> Work:
    y, x = algorithms(shape.windows, size)
    read = shape.tiles((y.outputs, x.outputs)) * y.reach * x.reach * shape.channels
    joined = shape.cells * shape.channels + min(shape.table / shape.batch, 2 * read)
    return _transformed(size, shape) + Work(moved=2 * joined, nodes=18 / shape.batch)


def _written(size: int, shape: Shape) -> float:
    """Numbers in the tiles that cover the outputs."""
    y, x = algorithms(shape.windows, size)
    return shape.tiles((y.outputs, x.outputs)) * y.outputs * x.outputs * shape.outputs


def _transformed(size: int, shape: Shape) -> Work:
    """From the tiles of inputs to those of outputs, and one pass over these."""
    y, x = algorithms(shape.windows, size)
    tiles = shape.tiles((y.outputs, x.outputs))
    elements = y.products * x.products
    gathered, halfway = y.reach * x.reach * shape.channels, y.products * x.reach * shape.channels
    transformed, multiplied = elements * shape.channels, elements * shape.outputs
    back = y.products * x.outputs * shape.outputs
    # A product reads and writes its operands once more (it packs them), which counts where few channels meet.
    moved = 2 * gathered + 2 * halfway + 2 * transformed + 2 * multiplied + 2 * back
    return Work(
        products=2 * tiles * elements * shape.channels * shape.outputs,
        moved=tiles * moved + 3 * _written(size, shape),
        loaded=assumed.PACKED * elements * shape.channels * shape.outputs / shape.batch,
        nodes=18 / shape.batch,
        held=tiles * (transformed + max(gathered, multiplied)),
    )


def _rounding(size: int, windows: Windows) -> float:
    """How much the transforms amplify rounding (Barabasz et al., section 4): 1 at direct evaluation, both axes multiplied."""
    amplification = 1.0
    for algorithm, window in zip(algorithms(windows, size), windows, strict=True):
        norms = (algorithm.weights**2).sum(axis=1) * (algorithm.inputs**2).sum(axis=1)
        amplification *= float(np.sqrt((algorithm.output**2 @ norms).mean() / window.kernel))
    return amplification


def _rounding_of_values(size: int, windows: Windows) -> float:
    return VALUES * _rounding(size, windows)


def winograd(size: int, site: Site) -> Updated:
    """The convolution of the change on tiles of ``size`` outputs an axis."""
    cells = site.operand.read_changes(site.emit, *site.tiles())
    return added_to_cached(site, _on_tiles(size, site, cells))


def winograd_of_values(size: int, site: Site) -> Updated:
    """The convolution of the updated input, and of the cached around it."""
    emit = site.emit
    convolved = _on_tiles(size, site, site.tile_cells(site.operand))
    rows = emit("Reshape", convolved, emit.int64([-1, site.channels]))
    for bias in (value for value in site.node.inputs[2:] if not value.is_empty()):
        rows = emit("Add", rows, site.constant(bias))
    return site.computed(rows=rows)


def _in_tiles(size: int, around: Surroundings) -> Layout:
    y, x = algorithms(around.windows, size)
    return Layout(tile=(y.outputs, x.outputs))


def _on_tiles(size: int, site: Site, cells: gs.Tensor) -> gs.Variable:
    """The products of ``cells`` (elements by y and x, tiles, C) in the transformed domain, and back: [y, x, tiles * M]."""
    emit = site.emit
    y, x = algorithms(site.windows, size)
    inputs = apply_along_both(emit, y.inputs, x.inputs, cells, "winograd/inputs")
    elements = emit.int64([y.products * x.products, -1, site.operand.updated.channels])
    products = emit("MatMul", emit("Reshape", inputs, elements), _weights(site, site.node.inputs[1], y, x))
    by_axis = emit("Reshape", products, emit.int64([y.products, x.products, -1]))
    return apply_along_both(emit, y.output, x.output, by_axis, "winograd/output")


def _weights(site: Site, weights: gs.Constant, y: Filtering, x: Filtering) -> gs.Constant:
    """[elements, C, M], computed in float64. Stored, not left for ONNX Runtime to fold: that held them three times."""
    taps = np.asarray(weights.values, dtype=np.float64).transpose(2, 3, 1, 0)
    half = np.tensordot(x.weights, taps, axes=(1, 1))
    transformed = np.tensordot(y.weights, half, axes=(1, 1)).astype(np.float32)
    return site.emit.constant(transformed.reshape(-1, *taps.shape[2:]), f"{weights.name}/winograd {y.outputs}x{x.outputs}")


LOWERINGS = tuple(
    lowering
    for size in SQUARE
    for lowering in (
        Lowering(
            f"winograd {size}", ("Conv",), partial(winograd, size), partial(_in_tiles, size),
            applies=partial(_applies, size), work=partial(_work, size), rounding=partial(_rounding, size),
        ),
        Lowering(
            f"winograd {size} of values", ("Conv",), partial(winograd_of_values, size), partial(_in_tiles, size),
            applies=partial(_widens, size), work=partial(_work_of_values, size), rounding=partial(_rounding_of_values, size),
        ),
    )
)  # fmt: skip
