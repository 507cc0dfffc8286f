"""A lowering: one way to compute a node on regions, and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from kcompiler.passes.lowering.layout import Layout, Surroundings
from kcompiler.passes.lowering.operand import Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.lowering.work import Shape, Work
from kcompiler.passes.regions.geometry import Window

Windows = tuple[Window, Window]
Holds = Callable[[gs.Node, Windows], bool]
Emit = Callable[[Site], Updated]


def always(node: gs.Node, windows: Windows) -> bool:
    return True


def copied(shape: Shape) -> Work:
    """Of an operator that reads its inputs once and writes its output once, in the order that the output is to have."""
    numbers = shape.rows * (shape.channels + shape.outputs)
    transitions = shape.transitions
    moved = 2 * shape.rows * transitions.reordered + shape.read_again(transitions.anew)
    nodes = 1 + 3 * bool(transitions.reordered) + 20 * bool(transitions.anew)
    return Work(moved=numbers + moved, nodes=nodes / shape.batch, held=numbers)


def no_rounding(windows: Windows) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Lowering:
    """One way to compute a node's region.

    Attributes:
        name: as the report shows it.
        operators: that it computes.
        emit: emits it, in the layout that ``layout`` gives.
        layout: of the region that it computes, by what surrounds the node.
        applies: whether it can compute a node (with these windows) at all.
        work: what it takes.
        on_maps: name of the lowering in its place where the region that is read cell by cell is held as maps.
        integer: whether products are of 8-bit integers, for approximate variants only.
        rounding: rms error relative to the output's, in units of float32's rounding, over what a direct evaluation has.
    """

    name: str
    operators: tuple[str, ...]
    emit: Emit
    layout: Callable[[Surroundings], Layout]
    applies: Holds = always
    work: Callable[[Shape], Work] = copied
    rounding: Callable[[Windows], float] = no_rounding
    on_maps: str = ""
    integer: bool = False
