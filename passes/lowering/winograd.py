"""Convolution by minimal filtering (Winograd) over tiles of each region: Gather, MatMul, one batched MatMul, MatMul.

The change (updated minus cached input) is convolved, and the result is added to the cached output. The change is zero outside
of the region, so nothing is read around it. The rounding error that the transforms amplify is relative to the change, which
deep in a network is small beside the activations. Where output channels far outnumber input channels, the activations
themselves may be convolved instead: that reads no cached output, at the price of a larger rounding error.

The input cells of the tiles are gathered tile element by tile element. So each transform is a plain matrix product, and the
elementwise products are one batched MatMul. The output stays in tile order: later reads can address any row order.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.lowering.filtering import LARGEST, Filtering, filtering
from kcompiler.passes.lowering.layout import Layout, Surroundings, none_gathered
from kcompiler.passes.lowering.operand import Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering, Windows
from kcompiler.passes.lowering.tiles import added_to_cached, apply_along_both
from kcompiler.passes.lowering.work import Shape, Work

SQUARE = (2, 3, 4, 5, 6, 7)
"""Tile sizes along an axis that has more than one tap."""
WIDER = 2
"""Output channels per input channel from which activations may be convolved instead of changes. Their time is 0.9 of that of
changes there, 0.95 below, for which the error budget is better spent elsewhere."""
VALUES = 3.0
"""Magnitude of activations over that of changes, as it shows in the outputs' rounding errors: 1.7 (GoogLeNet) to 2.8 (VGG16)."""


def algorithms(windows: Windows, size: int) -> tuple[Filtering, Filtering]:
    """The (y, x) algorithms for tiles of ``size`` outputs; along an axis whose kernel has one tap, tiles have size 1."""
    y, x = (filtering(size if window.kernel > 1 else 1, window.kernel, window.stride) for window in windows)
    return y, x


def _applies(size: int, node: gs.Node, windows: Windows) -> bool:
    """Ungrouped and undilated, with a kernel large enough that filtering saves products, and enough interpolation points."""
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
    joined = shape.cells * shape.channels + (assumed.COPIES * read if shape.transitions.copies else shape.table / shape.batch)
    return _transformed(size, shape) + Work(moved=2 * joined, nodes=18 / shape.batch)


def _written(size: int, shape: Shape) -> float:
    """Elements of the tiles that cover the output region."""
    y, x = algorithms(shape.windows, size)
    return shape.tiles((y.outputs, x.outputs)) * y.outputs * x.outputs * shape.outputs


def _transformed(size: int, shape: Shape) -> Work:
    """The work from gathered input tiles to output tiles: both transforms, the products, and one pass over the output."""
    y, x = algorithms(shape.windows, size)
    tiles = shape.tiles((y.outputs, x.outputs))
    elements = y.products * x.products
    gathered, half_transformed = y.reach * x.reach * shape.channels, y.products * x.reach * shape.channels
    transformed, multiplied = elements * shape.channels, elements * shape.outputs
    back = y.products * x.outputs * shape.outputs
    # A matrix product packs its operands: they are read and written once more, which counts where channels are few.
    moved = 2 * gathered + 2 * half_transformed + 2 * transformed + 2 * multiplied + 2 * back
    return Work(
        products=2 * tiles * elements * shape.channels * shape.outputs,
        moved=tiles * moved + 3 * _written(size, shape),
        loaded=assumed.PACKED * elements * shape.channels * shape.outputs / shape.batch,
        nodes=18 / shape.batch,
        held=tiles * (transformed + max(gathered, multiplied)),
    )


def _rounding(size: int, windows: Windows) -> float:
    """Amplification of rounding by the transforms (Barabasz et al., section 4), the product over both axes; 1 is direct."""
    amplification = 1.0
    for algorithm, window in zip(algorithms(windows, size), windows, strict=True):
        norms = (algorithm.weights**2).sum(axis=1) * (algorithm.inputs**2).sum(axis=1)
        amplification *= float(np.sqrt((algorithm.output**2 @ norms).mean() / window.kernel))
    return amplification


def _rounding_of_values(size: int, windows: Windows) -> float:
    return VALUES * _rounding(size, windows)


def winograd(size: int, site: Site) -> Updated:
    """The convolution of the change, by tiles of ``size`` outputs an axis, plus the cached output."""
    cells = site.operand.read_changes(site.emit, *site.tiles())
    return added_to_cached(site, _on_tiles(size, site, cells))


def winograd_of_values(size: int, site: Site) -> Updated:
    """The convolution of the activations: the updated region with the cached map around it."""
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
    """Transforms ``cells`` [cells y, cells x, tiles, C], multiplies, and transforms back: [outputs y, outputs x, tiles * M]."""
    emit = site.emit
    y, x = algorithms(site.windows, size)
    inputs = apply_along_both(emit, y.inputs, x.inputs, cells, "winograd/inputs")
    elements = emit.int64([y.products * x.products, -1, site.operand.updated.channels])
    products = emit("MatMul", emit("Reshape", inputs, elements), _weights(site, site.node.inputs[1], y, x))
    by_axis = emit("Reshape", products, emit.int64([y.products, x.products, -1]))
    return apply_along_both(emit, y.output, x.output, by_axis, "winograd/output")


def _weights(site: Site, weights: gs.Constant, y: Filtering, x: Filtering) -> gs.Constant:
    """Transformed weights [elements, C, M], computed in float64.

    They are stored, not left for ONNX Runtime to fold when it loads the model: that held three copies in memory.
    """
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
            applies=partial(_applies, size), work=partial(_work, size), gathered=none_gathered, rounding=partial(_rounding, size),
        ),
        Lowering(
            f"winograd {size} of values", ("Conv",), partial(winograd_of_values, size), partial(_in_tiles, size),
            applies=partial(_widens, size), work=partial(_work_of_values, size), rounding=partial(_rounding_of_values, size),
        ),
    )
)  # fmt: skip
