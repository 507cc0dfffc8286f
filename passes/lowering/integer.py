"""Convolution in 8-bit integers, for approximate variants: the change is quantised, not the activation.

The change (updated minus cached input) is small beside the activation, and the cached output is exact; so the error is relative
to the change. Weights are quantised per output channel, changes dynamically: one scale per batch, from the range at run time.
ONNX Runtime fuses the nodes into one product on VNNI or AMX.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.lowering.layout import ROWS, Layout, Surroundings, none_gathered, rows_as_read
from kcompiler.passes.lowering.operand import Updated, as_rows
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering, ungrouped
from kcompiler.passes.lowering.tiles import added_to_cached
from kcompiler.passes.lowering.work import Shape, Work
from kcompiler.runtime.arrays import AnyArray

LARGEST = 63
"""Largest code of a weight: 7 bits. x86 processors without VNNI add two products of an unsigned and a signed byte in 16 bits,
which saturate with codes of 8 bits (255 * 127 * 2 > 32767): an int8 variant of a tiny network was off by 0.7 of its outputs."""


def _work(shape: Shape) -> Work:
    """Subtraction, range, quantisation and product of the change; then scaling, and addition to the cached output."""
    gathered, written = shape.cells * shape.taps * shape.channels, shape.cells * shape.outputs
    return Work(
        integer=2 * gathered * shape.outputs,
        moved=6 * shape.cells * shape.channels + 5 * gathered + 6 * written,
        loaded=shape.taps * shape.channels * shape.outputs / 4 / shape.batch,
        nodes=30 / shape.batch,
        held=gathered + written,
    )


def conv_in_integers(site: Site) -> Updated:
    """im2col of the change, dynamically quantised, times int8 weights; the rescaled product is added to the cached output."""
    emit = site.emit
    weights = np.asarray(site.node.inputs[1].values)
    matrix = weights.transpose(2, 3, 1, 0).reshape(-1, site.channels)
    changes = _changes(site, len(matrix))
    codes, scales = quantised(matrix)
    values, scale, zero = emit.several("DynamicQuantizeLinear", 3, changes)
    products = emit("MatMulInteger", values, emit.constant(codes, f"{site.node.name}/codes"), zero)
    scale_products = emit("Mul", scale, emit.constant(scales, f"{site.node.name}/scales"))
    output_change = emit("Mul", emit("Cast", products, to=TensorProto.FLOAT), scale_products)
    return added_to_cached(site, output_change)


def _layout(around: Surroundings) -> Layout:
    return rows_as_read(around) if around.cell_by_cell else ROWS


def _changes(site: Site, depth: int) -> gs.Tensor:
    """im2col of the change: [rows, depth]."""
    emit, operand = site.emit, site.operand
    if site.cell_by_cell:
        return emit("Sub", as_rows(emit, operand.updated), operand.cached_rows(emit))
    return emit("Reshape", site.changed_patches(operand), emit.int64([-1, depth]))


def quantised(matrix: AnyArray) -> tuple[AnyArray, AnyArray]:
    """``matrix`` [depth, columns] as int8 codes and float32 scales [columns]: codes * scales approximates it."""
    values = matrix.astype(np.float64)
    largest = np.abs(values).max(axis=0)
    scales = np.where(largest > 0, largest / LARGEST, 1.0)
    return np.rint(values / scales).astype(np.int8), scales.astype(np.float32)


LOWERINGS = (
    Lowering(
        "int8 gemm", ("Conv",), conv_in_integers, _layout, applies=ungrouped, work=_work, gathered=none_gathered, integer=True
    ),
)
