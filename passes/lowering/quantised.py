"""Quantised maps on regions: ONNX Runtime's own integer operators, so that rounding is bit-identical.

Padding is gathered as rows of the zero point. The operators are defined on NCHW, so transpositions are emitted around them. ONNX
Runtime runs them channels last, as rows are, and removes these transpositions.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes import assumed
from kcompiler.passes.graphs.quantised import domain_of
from kcompiler.passes.lowering.layout import (
    ROWS,
    Layout,
    Surroundings,
    as_read,
    channels_first,
    rows_as_read,
    rows_shared,
    windows_gathered,
)
from kcompiler.passes.lowering.operand import Updated, as_rows
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering, ungrouped
from kcompiler.passes.lowering.work import Shape, Work
from kcompiler.passes.regions.quantised import MERGES, OPERANDS, UNARY

SOLO = ("QuantizeLinear", "DequantizeLinear", *UNARY)


def _parameters(site: Site, inputs: list[gs.Tensor]) -> list[gs.Tensor | None]:
    """Constant inputs (scales, zero points, weights, biases) as initializers; None for those left out."""
    return [site.constant(value) if not value.is_empty() else None for value in inputs]


def _conv_work(shape: Shape) -> Work:
    """Regions are gathered; the operator then does its own im2col, except for a 1x1 window of stride 1."""
    read, written = shape.reads * shape.channels, shape.cells * shape.outputs
    windows = shape.cells * shape.taps * shape.channels
    moved = 2 * read if shape.one_to_one else shape.union + 2 * read + 2 * windows
    flops = 2 * windows / shape.group * shape.outputs
    weights = shape.taps * shape.channels / shape.group * shape.outputs
    depthwise = shape.group == shape.channels > 1
    return Work(
        integer=0.0 if depthwise else flops,
        convolved=flops if depthwise else 0.0,
        moved=moved + 4 * written,
        loaded=weights / shape.batch,
        nodes=24 / shape.batch,
        held=2 * read + 2 * written,
    )


def conv_on_regions(site: Site) -> Updated:
    """The operator itself with zero ``pads``, on regions as held or gathered."""
    parameters, group = _parameters(site, site.node.inputs[1:]), site.attribute("group", 1)
    return site.computed(maps=site.emit("QLinearConv", site.maps(), *parameters, group=group, **site.unpadded))


def _gemm_work(shape: Shape) -> Work:
    gathered, written = shape.cells * shape.taps * shape.channels, shape.cells * shape.outputs
    copied = 3 * gathered + assumed.CELL_BYTES * shape.cells * shape.taps
    moved = gathered + 2 * written if shape.one_to_one else shape.union_of_windows + copied + 2 * written
    return Work(
        integer=2 * gathered * shape.outputs / assumed.INTEGERS_FASTER,
        moved=moved,
        loaded=shape.taps * shape.channels * shape.outputs / shape.batch,
        nodes=(1 if shape.one_to_one else 20) / shape.batch,
        held=gathered + written,
    )


def conv_as_gemm(site: Site) -> Updated:
    """im2col by Gather, then one QGemm for the whole batch, which rounds as the convolution does.

    The convolution itself multiplies image by image, in products too small to be fast.
    """
    emit, node, (y, x) = site.emit, site.node, site.windows
    _, scale, zero, weights, weights_scale, weights_zero, output_scale, output_zero, *bias = node.inputs
    depth = y.kernel * x.kernel * site.operand.updated.channels
    if site.cell_by_cell:
        rows = as_rows(emit, site.operand.updated)
    else:
        rows = emit("Reshape", site.patches(site.operand), emit.int64([-1, depth]))
    columns = emit("Transpose", site.constant(weights), perm=[2, 3, 1, 0])
    matrix = emit("Reshape", columns, emit.int64([depth, site.channels]))
    of_weights, of_output = _parameters(site, [weights_scale, weights_zero]), _parameters(site, [output_scale, output_zero])
    (bias_constant,) = _parameters(site, bias) or [None]
    inputs = [rows, *_parameters(site, [scale, zero]), matrix, *of_weights, bias_constant, *of_output]
    return site.computed(rows=emit("QGemm", *inputs, domain=domain_of("QGemm")))


def _layout_of_products(around: Surroundings) -> Layout:
    return rows_as_read(around) if around.cell_by_cell else ROWS


def _pool_work(shape: Shape) -> Work:
    read, written = shape.reads * shape.channels, shape.cells * shape.channels
    return Work(moved=shape.union + 2 * read + (2 + shape.taps) * written, nodes=24 / shape.batch, held=2 * read + 2 * written)


def average_pool_on_regions(site: Site) -> Updated:
    """The operator itself with zero ``pads``: the gathered padding counts in every window (``check_pool`` ensures that)."""
    y, x = site.windows
    maps = site.emit(
        "QLinearAveragePool",
        site.maps(),
        *_parameters(site, site.node.inputs[1:]),
        domain=domain_of("QLinearAveragePool"),
        kernel_shape=[y.kernel, x.kernel],
        strides=[y.stride, x.stride],
    )
    return site.computed(maps=maps)


def convert_cells(site: Site) -> Updated:
    """The operator itself, in the layout of the input region."""
    value, node = site.value, site.node
    parameters = _parameters(site, node.inputs[1:])
    attributes = {name: value for name, value in node.attrs.items() if name != "axis"}  # scales are per tensor, so axis is moot

    def apply(held: gs.Tensor) -> gs.Tensor:
        return site.emit(node.op, held, *parameters, domain=domain_of(node.op), **attributes)

    if value.rows is not None:
        return site.computed(rows=apply(value.rows))
    assert value.maps is not None
    return site.computed(maps=apply(value.maps))


def merge_regions(site: Site) -> Updated:
    """The operator on two regions brought to the union box, or on one region and a constant per channel."""
    emit = site.emit
    inputs: list[gs.Tensor | None] = []
    for place, (operand, value) in enumerate(zip(site.inputs, site.node.inputs, strict=True)):
        if operand is not None:
            inputs.append(site.aligned_rows(operand))
        elif place in OPERANDS:
            inputs.append(emit.constant(np.asarray(value.values).reshape(1, -1), value.name))
        else:
            inputs += _parameters(site, [value])
    return site.computed(rows=emit(site.node.op, *inputs, domain=domain_of(site.node.op)))


def concatenate(site: Site) -> Updated:
    """QLinearConcat along the channels, all branches as rows on the union box."""
    inputs: list[gs.Tensor | None] = []
    for operand, value in zip(site.inputs, site.node.inputs, strict=True):
        inputs += [site.aligned_rows(operand)] if operand is not None else _parameters(site, [value])
    return site.computed(rows=site.emit("QLinearConcat", *inputs, domain=domain_of("QLinearConcat"), axis=1))


LOWERINGS = (
    Lowering("regions", ("QLinearConv",), conv_on_regions, channels_first, work=_conv_work),
    Lowering(
        "gemm", ("QLinearConv",), conv_as_gemm, _layout_of_products, applies=ungrouped, work=_gemm_work, gathered=windows_gathered
    ),
    Lowering("regions", ("QLinearAveragePool",), average_pool_on_regions, channels_first, work=_pool_work),
    Lowering("as it is", SOLO, convert_cells, as_read),
    Lowering("merge", MERGES, merge_regions, rows_shared),
    Lowering("channels", ("QLinearConcat",), concatenate, rows_shared),
)
