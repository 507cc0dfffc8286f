"""The table of lowerings, and which of them can compute a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_graphsurgeon as gs

from kcompiler.passes.lowering import channels, conv, elementwise, integer, pool, quantised, resampling, winograd
from kcompiler.passes.lowering.heads import only_summed
from kcompiler.passes.lowering.layout import Transitions
from kcompiler.passes.lowering.table import Lowering, Windows
from kcompiler.passes.lowering.work import Shape
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
    found: dict[str, list[Lowering]] = {}
    for one in lowerings:
        for operator in one.operators:
            candidates = found.setdefault(operator, [])
            assert all(candidate.name != one.name for candidate in candidates), f"two lowerings {one.name} for {operator}"
            candidates.append(one)
    return found


LOWERINGS = _by_operator(one for family in FAMILIES for one in family.LOWERINGS)
"""The candidates of every operator."""


def windows(node: gs.Node, output: Region) -> Windows:
    """The (y, x) windows of the node; identity windows where it is no sliding window."""
    if slides(node):
        return windows_of(node)
    return Window.identity(output.y.size), Window.identity(output.x.size)


def candidates(node: gs.Node, windows: Windows, prefer: Mapping[str, str], *, integers: bool = False) -> list[Lowering]:
    """The preferred lowering (by node name, then operator) alone if it applies, else all that apply.

    Those of 8-bit integers are among them where ``integers`` are allowed.
    """
    applicable = [one for one in LOWERINGS[node.op] if one.applies(node, windows) and (integers or not one.integer)]
    wanted = prefer.get(node.name, prefer.get(node.op))
    return [candidate for candidate in applicable if candidate.name == wanted] or applicable


def shape_of(node: gs.Node, plan: Plan, h: IntArray, w: IntArray, batch: int) -> Shape:
    """The node on regions of ``h`` x ``w`` cells (one a batch).

    As long as layouts are not known, rows are read, and rows are made for all but heads, which sum maps as they are.
    """
    region = plan.regions[node.outputs[0].name]
    read = [plan.regions[value.name] for value in node.inputs if value.name in plan.regions]
    return Shape(
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


def _samples(node: gs.Node, region: Region) -> int:
    """Cells of ``region``, which ``node`` resamples, that an output is made of."""
    if node.op == "Slice" and sliced_axes(node) == {region.channel_axis}:
        return 1
    y, x = taps_of(node, region)
    return int(y.cells.shape[1] * x.cells.shape[1])


def by_name(node: gs.Node, name: str) -> Lowering:
    """The lowering called ``name`` of the node's operator."""
    return next(candidate for candidate in LOWERINGS[node.op] if candidate.name == name)
