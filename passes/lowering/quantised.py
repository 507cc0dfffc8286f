"""Quantised maps on regions: ONNX Runtime's own operators on integers, so that what they round is rounded alike.

Padding comes as rows of the zero point. Regions as channels first are what the operators are defined on; ONNX Runtime runs them
with channels last, as rows are, and so no transposition is left of those that are written here.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from kcompiler.passes.lowering.operand import Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.table import lowering
from kcompiler.passes.quantised import domain_of
from kcompiler.passes.rules.quantised import MERGES, UNARY
from kcompiler.passes.work import Shape, Work

SOLO = ("QuantizeLinear", "DequantizeLinear", *UNARY)


def _parameters(site: Site, inputs: list[gs.Tensor]) -> list[gs.Tensor | None]:
    """Scales, zero points, weights, biases."""
    return [site.constant(value) if not value.is_empty() else None for value in inputs]


def _conv_work(shape: Shape) -> Work:
    """Regions are gathered; the operator copies its windows side by side, but where it reads one cell for one."""
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


@lowering("regions", "QLinearConv", work=_conv_work)
def conv_on_regions(site: Site) -> Updated:
    """The operator without padding, over the regions as they are or gathered."""
    y, x = site.windows
    maps = site.emit(
        "QLinearConv",
        site.maps(),
        *_parameters(site, site.node.inputs[1:]),
        kernel_shape=[y.kernel, x.kernel],
        strides=[y.stride, x.stride],
        dilations=[y.dilation, x.dilation],
        pads=[0, 0, 0, 0],
        group=site.attribute("group", 1),
    )
    return site.computed(maps=maps)


def _pool_work(shape: Shape) -> Work:
    read, written = shape.reads * shape.channels, shape.cells * shape.channels
    return Work(moved=shape.union + 2 * read + (2 + shape.taps) * written, nodes=24 / shape.batch, held=2 * read + 2 * written)


@lowering("regions", "QLinearAveragePool", work=_pool_work)
def average_pool_on_regions(site: Site) -> Updated:
    """The operator without padding: all windows count it."""
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


@lowering("as it is", *SOLO)
def convert_cells(site: Site) -> Updated:
    """The operator itself, on whichever layout the region is in."""
    value, node = site.operand.updated, site.node
    parameters = _parameters(site, node.inputs[1:])
    attributes = {name: number for name, number in node.attrs.items() if name != "axis"}  # of scales that there is one of

    def apply(held: gs.Tensor) -> gs.Tensor:
        return site.emit(node.op, held, *parameters, domain=domain_of(node.op), **attributes)

    if value.rows is not None:
        return site.computed(rows=apply(value.rows), tile=value.tile)
    assert value.maps is not None
    return site.computed(maps=apply(value.maps))


@lowering("merge", *MERGES)
def merge_regions(site: Site) -> Updated:
    """Two regions brought to the union box."""
    tile = site.shared_tile()
    inputs: list[gs.Tensor | None] = []
    for operand, value in zip(site.inputs, site.node.inputs, strict=True):
        inputs += [site.aligned_rows(operand, tile)] if operand is not None else _parameters(site, [value])
    return site.computed(rows=site.emit(site.node.op, *inputs, domain=domain_of(site.node.op)), tile=tile)


@lowering("channels", "QLinearConcat")
def concatenate(site: Site) -> Updated:
    """Branches brought to the union box, then side by side along the channels."""
    tile = site.shared_tile()
    inputs: list[gs.Tensor | None] = []
    for operand, value in zip(site.inputs, site.node.inputs, strict=True):
        inputs += [site.aligned_rows(operand, tile)] if operand is not None else _parameters(site, [value])
    return site.computed(rows=site.emit("QLinearConcat", *inputs, domain=domain_of("QLinearConcat"), axis=1), tile=tile)
