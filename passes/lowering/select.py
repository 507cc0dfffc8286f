"""Which lowering computes a node."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from kcompiler.passes.geometry import Window
from kcompiler.passes.lowering import conv, elementwise, pool
from kcompiler.passes.lowering.table import LOWERINGS, Lowering, Windows
from kcompiler.passes.rules import RULES, Region, sliding_window, windows_of

assert all((conv, elementwise, pool)), "importing a lowering enters it into the table"


def windows(node: gs.Node, output: Region) -> Windows:
    """The (y, x) windows of the node; identity windows where it is no sliding window."""
    if RULES[node.op] is sliding_window:
        return windows_of(node)
    return Window.identity(output.y.size), Window.identity(output.x.size)


def choose(node: gs.Node, windows: Windows, prefer: Mapping[str, str]) -> Lowering:
    """The preferred lowering (by node name, then operator) if it applies, else the first that suits the node."""
    candidates = [candidate for candidate in LOWERINGS[node.op] if candidate.applies(node, windows)]
    wanted = prefer.get(node.name, prefer.get(node.op))
    preferred = [candidate for candidate in candidates if candidate.name == wanted]
    suited = [candidate for candidate in candidates if candidate.suits(node, windows)]
    return (preferred + suited + candidates)[0]
