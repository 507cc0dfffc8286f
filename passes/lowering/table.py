"""The table of lowerings: per operator, the candidates in order of preference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from kcompiler.passes.geometry import Window
from kcompiler.passes.lowering.site import Site, Updated

Windows = tuple[Window, Window]
Holds = Callable[[gs.Node, Windows], bool]
Emit = Callable[[Site], Updated]


@dataclass(frozen=True, slots=True)
class Lowering:
    """One way to compute a node's region.

    Attributes:
        name: as the report shows it.
        applies: whether it can compute this node (with these windows) at all.
        suits: whether it is the first choice for this node, of those that apply.
        emit: emits it.
        gathers_windows: whether it copies every window whole, so that a cell takes memory as often as windows overlap it.
    """

    name: str
    applies: Holds
    suits: Holds
    emit: Emit
    gathers_windows: bool = False


LOWERINGS: dict[str, list[Lowering]] = {}


def always(node: gs.Node, windows: Windows) -> bool:
    return True


def lowering(
    name: str, *operators: str, applies: Holds = always, suits: Holds = always, gathers_windows: bool = False
) -> Callable[[Emit], Emit]:
    """Enters the decorated function into the table, behind the candidates entered before."""

    def enter(emit: Emit) -> Emit:
        for operator in operators:
            candidates = LOWERINGS.setdefault(operator, [])
            assert all(candidate.name != name for candidate in candidates), f"two lowerings {name} for {operator}"
            candidates.append(Lowering(name, applies, suits, emit, gathers_windows))
        return emit

    return enter
