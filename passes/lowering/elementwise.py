"""Elementwise operators: activations, arithmetic, batch normalisation, comparisons, merges of branches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.emission.index import PAD_ROWS
from kcompiler.passes.graphs.quantised import quantised_behind
from kcompiler.passes.lowering.layout import ROWS, Layout, Surroundings, as_read, channels_first, rows_shared
from kcompiler.passes.lowering.operand import Updated, cached_rows
from kcompiler.passes.lowering.scaled import Scaled
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import Lowering, Windows
from kcompiler.passes.regions.cells import MERGES, POINTWISE
from kcompiler.runtime.arrays import AnyArray, DoubleArray

ZERO_FOR_ZERO = ("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "Tanh", "Softsign", "Abs", "Neg", "Sqrt",
                 "Erf", "Gelu", "Mish", "Mul")  # fmt: skip
"""Operators on one region (and finite parameters) that map zero to zero."""
NOT_ALWAYS_FINITE = ("Acosh", "Atanh", "Cosh", "Div", "Exp", "Log", "Pow", "Reciprocal", "Sinh", "Sqrt", "Tan")
"""Operators that can map finite values to infinities or NaN."""
ZERO_FOR_ZEROS = ("Add", "Sub", "Mul", "Max", "Min", "Sum", "PRelu")
"""Operators on several regions that map zeros to zero."""
PER_ROW: tuple[int, ...] = (-1,)
PER_MAP: tuple[int, ...] = (-1, 1, 1)


def apply_pointwise(site: Site) -> Updated:
    """The operator itself, in the layout of the input region."""
    if site.node.op in ("Identity", "Dropout"):
        return site.value
    parameters = [site.constant(v) if not v.is_empty() else None for v in site.node.inputs[1:]]
    source = site.node.inputs[0]

    def apply(value: gs.Tensor, _: tuple[int, ...]) -> gs.Tensor:
        return site.as_held(site.emit(site.node.op, site.as_typed(value, source), *parameters, **site.node.attrs))

    value = site.value
    scaled = value.scaled if site.node.op == "Relu" else None
    return _on_layout(site, value, apply, scaled.clipped(site.emit) if scaled is not None else None)


def _rounds_to_steps(node: gs.Node, windows: Windows) -> bool:
    return quantised_behind(node.outputs[0]) is not None


def _rounds_to_none(node: gs.Node, windows: Windows) -> bool:
    return not _rounds_to_steps(node, windows)


def batch_normalization_itself(site: Site) -> Updated:
    """The operator itself, on NCHW regions: outputs that are quantised later must be bit-identical."""
    parameters = (site.constant(value) for value in site.node.inputs[1:])
    return site.computed(maps=site.emit("BatchNormalization", site.maps(), *parameters, **site.node.attrs))


def batch_normalization(site: Site) -> Updated:
    """Inference-mode batch normalisation as one Mul and one Add with a constant per channel."""
    held = site.value
    scale, shift, mean, variance = (np.asarray(value.values, dtype=np.float64) for value in site.node.inputs[1:5])
    factor = scale / np.sqrt(variance + float(site.node.attrs.get("epsilon", 1e-5)))
    offset = shift - mean * factor

    def normalise(value: gs.Tensor, shape: tuple[int, ...]) -> gs.Tensor:
        scaled = site.emit("Mul", value, _channels(site, factor, shape))
        return site.emit("Add", scaled, _channels(site, offset, shape))

    return _on_layout(site, held, normalise, _scaled(held, factor, offset))


def merge_regions(site: Site) -> Updated:
    """Elementwise arithmetic on branches brought to the union box, or of one region with constants."""
    operands = [operand for operand in site.inputs if operand is not None]
    if _is_alone(site):
        value = site.brought_in_place(operands[0])
        return _on_layout(site, value, lambda value, shape: _elementwise(site, [value], shape), _scaled_by_constant(site, value))
    rows = _elementwise(site, [site.aligned_rows(operand) for operand in operands], PER_ROW)
    zeros = site.node.op in ZERO_FOR_ZEROS and len(operands) == len(site.inputs) and site.zeros(operands)
    return site.computed(rows=rows, zeros=zeros)


def _is_alone(around: Surroundings) -> bool:
    """Whether the node has one region as input, and constants that are the same for all cells."""
    return len(around.regions) == 1 and not any(_varies(around, value) for value in around.node.inputs)


def _layout_of_merge(around: Surroundings) -> Layout:
    if not _is_alone(around):
        return rows_shared(around)
    (held,) = around.regions
    return held.layout if held.aligned else ROWS


def _elementwise(site: Site, values: list[gs.Tensor], shape: tuple[int, ...]) -> gs.Tensor:
    """The operator on ``values`` (its inputs that are regions, in order); a constant per channel is reshaped to ``shape``."""
    regions = iter(values)
    inputs = []
    for operand, source in zip(site.inputs, site.node.inputs, strict=True):
        if operand is not None:
            inputs.append(site.as_typed(next(regions), source))
        elif (gate := site.gate(source)) is not None:
            inputs.append(site.emit("Reshape", gate, site.emit.int64([1, -1] if shape == PER_ROW else [-1, 1, 1])))
        elif _varies(site, source):
            inputs.append(site.as_typed(_constant_rows(site, source), source))
        else:
            inputs.append(_channels(site, np.asarray(source.values), shape))
    return site.as_held(site.emit(site.node.op, *inputs, **site.node.attrs))


def _channels_last(around: Surroundings, constant: gs.Constant) -> AnyArray:
    """A constant operand as [1, h, w, c], each size 1 or that of the output."""
    values = np.asarray(constant.values)
    aligned = values.reshape((1,) * (4 - values.ndim) + values.shape)
    return aligned if around.last else aligned.transpose(0, 2, 3, 1)


def _varies(around: Surroundings, operand: gs.Tensor) -> bool:
    """Whether ``value`` is a constant that differs between cells."""
    return isinstance(operand, gs.Constant) and _channels_last(around, operand).shape[1:3] != (1, 1)


def _constant_rows(site: Site, constant: gs.Constant) -> gs.Tensor:
    """The rows of a constant feature map on the cells of the output region."""
    values = _channels_last(site, constant).astype(np.float32)
    whole = np.broadcast_to(values, (1, site.output.y.size, site.output.x.size, values.shape[3]))
    table = np.concatenate([whole.reshape(-1, values.shape[3]), np.zeros((PAD_ROWS, values.shape[3]), np.float32)])
    return cached_rows(site.emit, site.output, site.layout.tile, site.emit.constant(table, f"{site.node.name}/map"))


def _scaled(value: Updated, factor: DoubleArray | float, offset: DoubleArray | float) -> Scaled | None:
    """The affine form of ``value`` * ``factor`` + ``offset``, if the region is held as rows."""
    if value.rows is None:
        return None
    return (value.scaled or Scaled.plain(value.rows, value.channels)).then(factor, offset)


def _scaled_by_constant(site: Site, value: Updated) -> Scaled | None:
    """The affine form of the node's output where it is ``value`` times or plus a constant per channel."""
    constants = [operand for operand in site.node.inputs if isinstance(operand, gs.Constant)]
    if site.node.op not in ("Mul", "Add") or len(constants) != 1 or value.channels != site.channels:
        return None
    per_channel = np.broadcast_to(np.asarray(constants[0].values, dtype=np.float64).reshape(-1), site.channels)
    return _scaled(value, per_channel, 0.0) if site.node.op == "Mul" else _scaled(value, 1.0, per_channel)


def _on_layout(
    site: Site, value: Updated, compute: Callable[[gs.Tensor, tuple[int, ...]], gs.Tensor], scaled: Scaled | None = None
) -> Updated:
    """``compute(tensor, shape of a constant per channel)`` in the layout of the input region."""
    if value.rows is not None:
        # The leading rows start as zeros and go through the same operators in both: their change is zero while they are finite.
        keeps_cached = value.cached is not None and site.node.op not in NOT_ALWAYS_FINITE
        cached = compute(value.cached, PER_ROW) if keeps_cached else None
        zeros = value.zeros and site.node.op in ZERO_FOR_ZERO
        return site.computed(rows=compute(value.rows, PER_ROW), cached=cached, zeros=zeros, scaled=scaled)
    assert value.maps is not None
    return site.computed(maps=compute(value.maps, PER_MAP))


def _channels(site: Site, values: AnyArray, shape: tuple[int, ...]) -> gs.Constant:
    dtype = values.dtype if values.dtype == np.bool_ else np.dtype(np.float32)
    return site.emit.constant(values.astype(dtype).reshape(shape if values.size > 1 else ()), f"{site.node.name}/channels")


LOWERINGS = (
    Lowering("pointwise", tuple(op for op in POINTWISE if op != "BatchNormalization"), apply_pointwise, as_read),
    Lowering("operator", ("BatchNormalization",), batch_normalization_itself, channels_first, applies=_rounds_to_steps),
    Lowering("scale and shift", ("BatchNormalization",), batch_normalization, as_read, applies=_rounds_to_none),
    Lowering("merge", MERGES, merge_regions, _layout_of_merge),
)
