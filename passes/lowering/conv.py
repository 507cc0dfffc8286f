"""Convolution on regions: im2col and Gemm over rows, or Conv over gathered regions."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.lowering.layout import channels_first, rows_in_plain_order, windows_gathered
from kcompiler.passes.lowering.operand import Updated, as_rows
from kcompiler.passes.lowering.scaled import Scaled
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering, ungrouped
from kcompiler.passes.lowering.work import FLOAT_BYTES, Shape, Work, read_again


def _weights(shape: Shape) -> float:
    return shape.taps * shape.channels / shape.group * shape.outputs / shape.batch


def _flops(shape: Shape) -> float:
    return 2 * shape.cells * shape.taps * shape.channels / shape.group * shape.outputs


def _gemm_work(shape: Shape) -> Work:
    gathered = shape.cells * shape.taps * shape.channels
    written = shape.cells * shape.outputs
    moved = gathered + 2 * written if shape.one_to_one else shape.union_of_windows + 3 * gathered + 2 * written
    moved += 2 * shape.cells * shape.transitions.reordered
    again = read_again(_flops(shape), shape.cells * shape.batch, shape.taps * shape.channels)
    nodes = (1 if shape.one_to_one else 20) / shape.batch
    return Work(products=_flops(shape), moved=moved + again, loaded=_weights(shape), nodes=nodes, held=gathered + written)


def _regions_work(shape: Shape) -> Work:
    """Inputs are gathered and transposed to NCHW, outputs back; ONNX Runtime converts to NCHWc (blocks of 8 or 16) and back.

    Readers that take maps need no transposition of the outputs. A 1x1 window of stride 1 needs no gathering.
    """
    read, written = shape.reads * shape.channels, shape.cells * shape.outputs
    transposed = 0.0 if shape.transitions.reads_maps else 2 * read + 2 * shape.cells * shape.transitions.reordered
    moved = transposed if shape.one_to_one else shape.union + 4 * read
    moved += (1 if shape.transitions.keeps_maps else 4) * written
    nodes, held = (4 if shape.one_to_one else 24) / shape.batch, 2 * read + 2 * written
    if shape.group == shape.channels > 1:  # depthwise: in micro-batches that fit a core's cache
        held = min(held, assumed.CACHE_BYTES / FLOAT_BYTES / shape.batch)
    return Work(convolved=_flops(shape), moved=moved, loaded=_weights(shape), nodes=nodes, held=held)


def conv_as_gemm(site: Site) -> Updated:
    """im2col by Gather, then Gemm; a 1x1 convolution of stride 1 multiplies the input rows themselves.

    Deferred channel scales of the rows (:class:`Scaled`) are folded into the weights.
    The weights are transposed from [M, C, kh, kw] to [kh * kw * C, M] by nodes on the initializer, which ONNX Runtime folds
    when it loads the session. So the bundle stores them once.
    """
    emit, operand = site.emit, site.operand
    y, x = site.windows
    weights = site.node.inputs[1]
    scaled: Scaled | None = None
    depth = y.kernel * x.kernel * operand.updated.channels
    if site.cell_by_cell:
        deferred = operand.updated.scaled
        scaled = deferred if deferred is not None and deferred.centred else None
        rows = operand.updated.in_plain_order(emit, scaled.rows if scaled is not None else as_rows(emit, operand.updated))
    else:
        rows = emit("Reshape", site.patches(operand), emit.int64([-1, depth]))
    columns = emit("Transpose", site.constant(weights), perm=[2, 3, 1, 0])
    matrix = emit("Reshape", columns, emit.int64([depth, site.channels]))
    if scaled is not None:
        matrix = emit("Mul", matrix, emit.constant(scaled.factor.astype(np.float32)[:, None], f"{weights.name}/factors"))
    products = emit("Gemm", rows, matrix, *_bias(site, scaled))
    return site.computed(rows=products)


def _bias(site: Site, scaled: Scaled | None) -> list[gs.Constant]:
    """The bias of the Gemm, if any: the node's own bias plus the products of the weights and constant input channels."""
    weights, *bias = site.node.inputs[1:]
    biases = [value for value in bias if not value.is_empty()]
    if scaled is None or not scaled.offset.any():
        return [site.constant(value) for value in biases]
    shift = np.asarray(weights.values, dtype=np.float64).reshape(site.channels, -1) @ scaled.offset
    shifted = sum((np.asarray(value.values, dtype=np.float64) for value in biases), shift)
    return [site.emit.constant(shifted.astype(np.float32), f"{weights.name}/shifts")]


def conv_on_regions(site: Site) -> Updated:
    """The Conv itself with zero ``pads``, on regions as held or gathered; gathered regions contain the padding as zero rows."""
    parameters = (site.constant(value) for value in site.node.inputs[1:] if not value.is_empty())
    return site.computed(maps=site.emit("Conv", site.maps(), *parameters, group=site.attribute("group", 1), **site.unpadded))


LOWERINGS = (
    Lowering(
        "gemm",
        ("Conv",),
        conv_as_gemm,
        rows_in_plain_order,
        applies=ungrouped,
        work=_gemm_work,
        gathered=windows_gathered,
        on_maps="regions",
    ),
    Lowering("regions", ("Conv",), conv_on_regions, channels_first, work=_regions_work),
)
"""A region held as maps is convolved as maps: ONNX Runtime's NCHWc layout is faster than a transposition to rows and a Gemm."""
