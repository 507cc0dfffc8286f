"""Pooling on regions: the operator on gathered regions, a reduction of gathered windows, or a transform of tiled changes."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emission.index import LOWEST_ROW, ZERO_ROW
from kcompiler.passes.emission.reads import Reads, contiguous_reads, tile_reads
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.layout import (
    MAPS,
    ROWS,
    Layout,
    Surroundings,
    channels_first,
    none_gathered,
    rows_in_plain_order,
    windows_gathered,
)
from kcompiler.passes.lowering.operand import Updated, as_rows
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.tiles import added_to_cached, apply_along_both
from kcompiler.passes.lowering.work import Shape, Work
from kcompiler.passes.regions.geometry import Window
from kcompiler.runtime.arrays import DoubleArray, IntArray

TILES = (2, 4, 7)


def _windows_work(shape: Shape) -> Work:
    gathered = shape.cells * shape.taps * shape.channels
    return Work(moved=shape.union_of_windows + 3 * gathered, nodes=20 / shape.batch, held=gathered + shape.cells * shape.outputs)


def max_pool(site: Site) -> Updated:
    """The maximum of each gathered window; padding is the lowest float, as in the operator."""
    return site.computed(rows=site.emit("ReduceMax", _windows(site, LOWEST_ROW), site.emit.int64([1]), keepdims=0))


def average_pool(site: Site) -> Updated:
    """The sum of each gathered window, divided by the number of cells that it counts."""
    emit, (y, x) = site.emit, _counts(site)
    total = emit("ReduceSum", _windows(site, ZERO_ROW), emit.int64([1]), keepdims=0)
    if _uniform(y, x):
        return site.computed(rows=emit("Mul", total, emit.constant(np.array(1 / (y[0] * x[0]), np.float32))))
    cells = (contiguous_reads(emit, Window.identity(a.size), a) for a in (site.output.y, site.output.x))
    return site.computed(rows=emit("Mul", total, _reciprocals(emit, y, x, *cells)))


def norm_pool(site: Site) -> Updated:
    """The p-norm of each gathered window; padding is zero."""
    emit, windows, power = site.emit, _windows(site, ZERO_ROW), site.node.attrs.get("p", 2)
    axis = emit.int64([1])
    if power in (1, 2):
        return site.computed(rows=emit(f"ReduceL{power}", windows, axis, keepdims=0))
    exponents = [emit.constant(np.array(exponent, np.float32)) for exponent in (power, 1 / power)]
    total = emit("ReduceSum", emit("Pow", emit("Abs", windows), exponents[0]), axis, keepdims=0)
    return site.computed(rows=emit("Pow", total, exponents[1]))


def _regions_work(shape: Shape) -> Work:
    """Regions are transposed to NCHW and back; the overlapping reads of windows hit near caches, at half the cost."""
    read, written = shape.reads * shape.channels, shape.cells * shape.channels
    moved = shape.union + 3 * read + (1 if shape.transitions.keeps_maps else 3) * written + shape.taps * written / 2
    return Work(moved=moved, nodes=24 / shape.batch, held=2 * read + 2 * written)


def _on_regions(site: Site, pad_row: int) -> gs.Variable:
    """The operator itself with zero ``pads`` on gathered input regions, which contain the padding: [batch, C, h, w]."""
    emit, (y, x) = site.emit, site.windows
    maps = emit("Transpose", site.cells(site.operand, pad_row), perm=[0, 3, 1, 2])
    attributes = {"kernel_shape": [y.kernel, x.kernel], "strides": [y.stride, x.stride]}
    if max(y.dilation, x.dilation) > 1:  # AveragePool lacks this attribute in older opsets
        attributes["dilations"] = [y.dilation, x.dilation]
    return emit(
        site.node.op, maps, name=None, domain=None, **attributes
    )  # name and domain are given for the type checker, which takes them for possible keys of attributes


def max_pool_on_regions(site: Site) -> Updated:
    """MaxPool itself on gathered regions; padding is the lowest float, as in the operator."""
    return site.computed(maps=_on_regions(site, LOWEST_ROW))


def average_pool_on_regions(site: Site) -> Updated:
    """AveragePool itself with zeros for padding, rescaled by the number of cells that each window counts."""
    emit, (y, x) = site.emit, _counts(site)
    means = _on_regions(site, ZERO_ROW)
    if site.layout.maps:
        return site.computed(maps=means)
    cells = (contiguous_reads(emit, Window.identity(a.size), a) for a in (site.output.y, site.output.x))
    taps = np.prod([window.kernel for window in site.windows])
    counted = emit("Mul", _reciprocals(emit, y, x, *cells), emit.constant(np.array(taps, np.float32)))
    return site.computed(rows=emit("Mul", as_rows(emit, Updated(site.output, site.channels, maps=means)), counted))


def _layout_of_means(around: Surroundings) -> Layout:
    """Maps as the operator returns them; rows where windows at the borders count fewer cells and are rescaled."""
    taps = [window.kernel for window in around.windows]
    return MAPS if all(set(counts) == {size} for counts, size in zip(_counts(around), taps, strict=True)) else ROWS


def _sums(window: Window, tile: int) -> DoubleArray:
    """[tile, cells]: 1 where an output of a tile sums an input cell of the tile, else 0."""
    taps = np.arange(window.input_extent(tile)) - np.arange(tile)[:, None] * window.stride
    sums: DoubleArray = ((taps >= 0) & (taps < window.reach) & (taps % window.dilation == 0)).astype(np.float64)
    return sums


def _tiled_work(size: int, shape: Shape) -> Work:
    y, x = (window.input_extent(size) for window in shape.windows)
    tiles, channels = shape.tiles((size, size)), shape.channels
    moved = 3 * y * x + 2 * size * x + 8 * size**2
    held = tiles * channels * (y * x + size * x)
    return Work(moved=channels * (6 * shape.cells + tiles * moved), nodes=30 / shape.batch, held=held)


def _tiled_mean(size: int, site: Site) -> Updated:
    """The change of the means on tiles of ``size`` x ``size`` outputs, by matrix products, plus the cached output."""
    emit, (y, x) = site.emit, _counts(site)
    along_y, along_x = (_sums(window, size) for window in site.windows)
    cells = site.operand.read_changes(emit, *site.tiles())
    if _uniform(y, x):
        return added_to_cached(site, apply_along_both(emit, along_y / y[0], along_x / x[0], cells, "pool"))
    sums = emit("Reshape", apply_along_both(emit, along_y, along_x, cells, "pool"), emit.int64([-1, site.channels]))
    box = site.output
    outputs = tile_reads(emit, (Window.identity(box.y.size), Window.identity(box.x.size)), box, (size, size))
    return added_to_cached(site, emit("Mul", sums, _reciprocals(emit, y, x, *outputs)))


def _in_tiles(size: int, around: Surroundings) -> Layout:
    return Layout(tile=(size, size))


def _windows(site: Site, pad_row: int) -> gs.Variable:
    """im2col, [batch * h * w, kernel h * kernel w, C]."""
    y, x = site.windows
    shape = site.emit.int64([-1, y.kernel * x.kernel, site.channels])
    return site.emit("Reshape", site.patches(site.operand, pad_row), shape)


def _counts(around: Surroundings) -> tuple[IntArray, IntArray]:
    """int64 [outputs] along y and x: cells that each output's window counts (``count_include_pad``, clipped by ``ceil_mode``)."""
    pads = around.attribute("pads", [0, 0, 0, 0])
    assert isinstance(pads, list)
    before, after = (pads[:2], pads[2:]) if around.attribute("count_include_pad", 0) else ([0, 0], [0, 0])
    y, x = (window.counted_taps(b, a) for window, b, a in zip(around.windows, before, after, strict=True))
    return y, x


def _uniform(y: IntArray, x: IntArray) -> bool:
    return len(set(y)) == len(set(x)) == 1


def _reciprocals(emit: Emitter, counts_y: IntArray, counts_x: IntArray, y: Reads, x: Reads) -> gs.Variable:
    """float32 [rows, 1]: the reciprocal of the counted cells of each output; outputs beyond the map take that of the last."""
    along = []
    for counts, reads in ((counts_y, y), (counts_x, x)):
        inverse = (1 / np.maximum(counts, 1)).astype(np.float32)
        along.append(reads.lookup(emit, inverse, inverse[-1]))
    return emit("Reshape", emit("Mul", *along), emit.int64([-1, 1]))


LOWERINGS = (
    Lowering("window max", ("MaxPool",), max_pool, rows_in_plain_order, work=_windows_work, gathered=windows_gathered),
    Lowering("window mean", ("AveragePool",), average_pool, rows_in_plain_order, work=_windows_work, gathered=windows_gathered),
    Lowering("window norm", ("LpPool",), norm_pool, rows_in_plain_order, work=_windows_work, gathered=windows_gathered),
    Lowering("regions", ("MaxPool",), max_pool_on_regions, channels_first, work=_regions_work),
    Lowering("regions", ("AveragePool",), average_pool_on_regions, _layout_of_means, work=_regions_work),
    *(
        Lowering(
            f"tiled mean {size}",
            ("AveragePool",),
            partial(_tiled_mean, size),
            partial(_in_tiles, size),
            work=partial(_tiled_work, size),
            gathered=none_gathered,
        )
        for size in TILES
    ),
)
