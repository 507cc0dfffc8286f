"""The table of lowerings by operator, and the selection of those that apply to a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import onnx_graphsurgeon as gs

from kcompiler.passes.lowering import channels, conv, elementwise, integer, pool, quantised, resampling, winograd
from kcompiler.passes.lowering.heads import only_summed
from kcompiler.passes.lowering.layout import Transitions
from kcompiler.passes.lowering.table import Lowering, Windows
from kcompiler.passes.lowering.work import Shape, copies_reads
from kcompiler.passes.plan import Plan
from kcompiler.passes.regions.channels import sliced_axes
from kcompiler.passes.regions.geometry import Window
from kcompiler.passes.regions.region import Region
from kcompiler.passes.regions.resampling import taps_of
from kcompiler.passes.regions.windows import slides, windows_of
from kcompiler.runtime.arrays import IntArray

RESAMPLING = ("Pad", "Resize", "Slice", "DepthToSpace")
FAMILIES = (channels, conv, elementwise, integer, pool, quantised, resampling, winograd)


def _by_operator(lowerings: Iterable[Lowering]) -> dict[str, list[Lowering]]:
    table: dict[str, list[Lowering]] = {}
    for lowering in lowerings:
        for operator in lowering.operators:
            candidates = table.setdefault(operator, [])
            assert all(other.name != lowering.name for other in candidates), f"two lowerings {lowering.name} for {operator}"
            candidates.append(lowering)
    return table


LOWERINGS = _by_operator(lowering for family in FAMILIES for lowering in family.LOWERINGS)
"""All lowerings, by operator."""


def windows(node: gs.Node, output: Region) -> Windows:
    """The (y, x) windows of a sliding-window node; identity windows for any other node."""
    if slides(node):
        return windows_of(node)
    return Window.identity(output.y.size), Window.identity(output.x.size)


def candidates(node: gs.Node, windows: Windows, prefer: Mapping[str, str], *, integers: bool = False) -> list[Lowering]:
    """The preferred lowering (by node name, then operator) alone if it applies, else all that apply.

    Lowerings that multiply 8-bit integers are included only if ``integers``.
    """
    applicable = [
        lowering for lowering in LOWERINGS[node.op] if lowering.applies(node, windows) and (integers or not lowering.integer)
    ]
    preferred = prefer.get(node.name, prefer.get(node.op))
    return [lowering for lowering in applicable if lowering.name == preferred] or applicable


def shape_of(node: gs.Node, plan: Plan, h: IntArray, w: IntArray, batch: int) -> Shape:
    """The sizes of ``node`` on output regions of ``h`` x ``w`` cells (int64 [batches]).

    Its transitions are those before layouts are chosen: inputs are rows, and so are outputs, except for those that only heads
    read, which pool maps directly; the cells of its receptive field are copied where that moves less.
    """
    region = plan.regions[node.outputs[0].name]
    read = [plan.regions[value.name] for value in node.inputs if value.name in plan.regions]
    shape = Shape(
        channels=sum(r.channels for r in read),
        outputs=region.channels,
        group=int(node.attrs.get("group", 1)),
        windows=windows(node, region),
        h=h,
        w=w,
        batch=batch,
        table=sum(r.channels * r.y.size * r.x.size for r in read),
        transitions=Transitions(keeps_maps=only_summed(node.outputs[0], region)),
        samples=_samples(node, read[0]) if node.op in RESAMPLING else 1,
    )
    copies = copies_reads(shape.table / shape.channels, shape.reads, batch)
    return replace(shape, transitions=replace(shape.transitions, copies=copies))


def _samples(node: gs.Node, region: Region) -> int:
    """Taps of a resampling ``node`` on ``region``: input cells that each output cell reads."""
    if node.op == "Slice" and sliced_axes(node) == {region.channel_axis}:
        return 1
    y, x = taps_of(node, region)
    return int(y.cells.shape[1] * x.cells.shape[1])


def by_name(node: gs.Node, name: str) -> Lowering:
    """The lowering called ``name`` of the node's operator."""
    return next(lowering for lowering in LOWERINGS[node.op] if lowering.name == name)
