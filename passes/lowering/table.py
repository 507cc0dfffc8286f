"""The record of a lowering: one way to compute an operator on regions, with its layout, its work and its rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from kcompiler.passes.lowering.layout import Layout, Surroundings, cells_gathered
from kcompiler.passes.lowering.operand import Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.work import Shape, Work
from kcompiler.passes.regions.geometry import Window

Windows = tuple[Window, Window]
Holds = Callable[[gs.Node, Windows], bool]
Emit = Callable[[Site], Updated]


def ungrouped(node: gs.Node, windows: Windows) -> bool:
    """Whether each output channel of a convolution reads all input channels."""
    return bool(node.attrs.get("group", 1) == 1)


def always(node: gs.Node, windows: Windows) -> bool:
    return True


def copied(shape: Shape) -> Work:
    """The work of an operator bound by memory: its inputs are read and its output is written once, in the output's row order."""
    elements = shape.rows * (shape.channels + shape.outputs)
    transitions = shape.transitions
    moved = 2 * shape.rows * transitions.reordered + shape.reread(transitions.anew)
    nodes = 1 + 3 * bool(transitions.reordered) + 20 * bool(transitions.anew)
    return Work(moved=elements + moved, nodes=nodes / shape.batch, held=elements)


def no_rounding(windows: Windows) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Lowering:
    """One way to compute a node's output region.

    Attributes:
        name: as the report shows it.
        operators: the operators that it implements.
        emit: emits the nodes, with the output in the layout that ``layout`` gives.
        layout: of the output region, by the layouts of the inputs.
        applies: whether it can compute a given node (with these windows) at all.
        work: for the cost model.
        gathered: cells per position that it gathers from the cached map with the region pasted in, by the output's layout.
        on_maps: name of the lowering that replaces it where a 1x1 window of stride 1 reads a region held as maps.
        integer: whether it multiplies 8-bit integers: for approximate variants only.
        rounding: rms error that it adds, relative to the output's rms, in units of float32's rounding; 0 for direct evaluation.
    """

    name: str
    operators: tuple[str, ...]
    emit: Emit
    layout: Callable[[Surroundings], Layout]
    applies: Holds = always
    work: Callable[[Shape], Work] = copied
    gathered: Callable[[Surroundings, Layout], float] = cells_gathered
    rounding: Callable[[Windows], float] = no_rounding
    on_maps: str = ""
    integer: bool = False
