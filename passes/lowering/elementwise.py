"""Cell by cell: activations, per-channel arithmetic, batch normalisation, merges of branches, channels side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emit import Array
from kcompiler.passes.lowering.site import Site, Updated
from kcompiler.passes.lowering.table import lowering
from kcompiler.passes.rules import RULES, merge, pointwise

POINTWISE = tuple(operator for operator, rule in RULES.items() if rule is pointwise and operator != "BatchNormalization")
MERGES = tuple(operator for operator, rule in RULES.items() if rule is merge)
ZERO_FOR_ZERO = ("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "Tanh", "Softsign", "Abs", "Neg", "Sqrt",
                 "Erf", "Gelu", "Mish", "Mul")  # fmt: skip
"""Operators of one region (and finite parameters) that leave a zero as it is."""
NOT_ALWAYS_FINITE = ("Div", "Exp", "Sqrt")
"""Operators that make infinities or no numbers of finite ones."""
ZERO_FOR_ZEROS = ("Add", "Sub", "Mul", "Max", "Min", "Sum", "PRelu")
"""Operators of several regions that make zeros of zeros."""
PER_ROW: tuple[int, ...] = (-1,)
PER_MAP: tuple[int, ...] = (-1, 1, 1)


@lowering("pointwise", *POINTWISE)
def apply_pointwise(site: Site) -> Updated:
    """The operator itself, on whichever layout the region is in."""
    if site.node.op in ("Identity", "Dropout"):
        return site.operand.updated
    parameters = [site.constant(v) if not v.is_empty() else None for v in site.node.inputs[1:]]
    return _on_layout(site, site.operand.updated, lambda value, _: site.emit(site.node.op, value, *parameters, **site.node.attrs))


@lowering("scale and shift", "BatchNormalization")
def batch_normalization(site: Site) -> Updated:
    """Inference-mode batch normalisation as one multiplication and one addition a channel."""
    scale, shift, mean, variance = (np.asarray(value.values, dtype=np.float64) for value in site.node.inputs[1:5])
    factor = scale / np.sqrt(variance + float(site.node.attrs.get("epsilon", 1e-5)))
    offset = shift - mean * factor

    def normalise(value: gs.Tensor, shape: tuple[int, ...]) -> gs.Tensor:
        scaled = site.emit("Mul", value, _channels(site, factor, shape))
        return site.emit("Add", scaled, _channels(site, offset, shape))

    return _on_layout(site, site.operand.updated, normalise)


@lowering("merge", *MERGES)
def merge_regions(site: Site) -> Updated:
    """Elementwise over branches brought to the union box, or with scalar or per-channel constants."""
    operands = [operand for operand in site.inputs if operand is not None]
    if len(operands) == 1:
        return _on_layout(site, operands[0].updated, lambda value, shape: _elementwise(site, [value], shape))
    tile = site.shared_tile()
    rows = _elementwise(site, [site.aligned_rows(o, tile) for o in operands], PER_ROW)
    zeros = site.node.op in ZERO_FOR_ZEROS and len(operands) == len(site.inputs) and site.zeros(operands, tile)
    return site.computed(rows=rows, tile=tile, zeros=zeros)


@lowering("channels", "Concat")
def concatenate(site: Site) -> Updated:
    """Branches brought to the union box, then side by side along the channels."""
    tile = site.shared_tile()
    operands = [operand for operand in site.inputs if operand is not None]
    rows = [site.aligned_rows(operand, tile) for operand in operands]
    return site.computed(rows=site.emit("Concat", *rows, axis=1), tile=tile, zeros=site.zeros(operands, tile))


def _elementwise(site: Site, values: list[gs.Tensor], shape: tuple[int, ...]) -> gs.Tensor:
    """The node on ``values`` (its inputs that are regions, in order) and its constants brought to ``shape``."""
    regions = iter(values)
    inputs = [
        next(regions) if operand is not None else _channels(site, np.asarray(constant.values), shape)
        for operand, constant in zip(site.inputs, site.node.inputs, strict=True)
    ]
    return site.emit(site.node.op, *inputs, **site.node.attrs)


def _on_layout(site: Site, value: Updated, compute: Callable[[gs.Tensor, tuple[int, ...]], gs.Tensor]) -> Updated:
    """``compute(region, shape of a number a channel)`` in the layout that the region is held in."""
    if value.rows is not None:
        # Rows in front, of zeros and what became of them, stay unchanged as long as they are finite.
        kept = value.cached is not None and site.node.op not in NOT_ALWAYS_FINITE
        cached = compute(value.cached, PER_ROW) if kept else None
        zeros = value.zeros and site.node.op in ZERO_FOR_ZERO
        return site.computed(rows=compute(value.rows, PER_ROW), tile=value.tile, cached=cached, zeros=zeros)
    assert value.maps is not None
    return site.computed(maps=compute(value.maps, PER_MAP))


def _channels(site: Site, numbers: Array, shape: tuple[int, ...]) -> gs.Constant:
    return site.emit.constant(numbers.astype(np.float32).reshape(shape if numbers.size > 1 else ()), f"{site.node.name}/channels")
