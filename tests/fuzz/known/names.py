"""Names that compiled models use themselves, and versions of operators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz import gentle
from tests.fuzz.cases import Case
from tests.fuzz.known.making import convolution, files, head, model, plain


def own_names() -> Iterator[Case]:
    """Names that compiled models give to their own inputs, tables and nodes: each of them at each value, and at each node."""
    places = ("image", "weights", "maps", "means", "scores")
    for first in range(len(OURS)):
        names = [OURS[(first + place) % len(OURS)] for place in range(len(places))]
        made = plain()
        rename(made.graph, dict(zip(places, names, strict=True)))
        for node, name in zip(made.graph.node, names[1:], strict=False):
            node.name = name
        yield f"values and nodes named {OURS[first]} and further", files(made)


OURS = (*gentle.OURS, "table/maps", "index/a", "shape/a", "Gather")


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Gives values other names."""
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)


def opsets() -> Iterator[Case]:
    clip = helper.make_node("Clip", ["image", "", "most"], ["maps"])
    most = numpy_helper.from_array(np.array(0.5, np.float32), "most")
    for imports in (
        (("", 18), ("", 18)),
        (("", 18), ("", 11)),
        (("", 11), ("ai.onnx", 18)),
        (("", 0),),
        (("", -1),),
        (("", 99),),
        (),
        (("x", 1),),
    ):
        yield f"opsets {imports}", files(model([clip, *head()], [most], opsets=imports))
        yield f"opsets {imports} of a convolution", files(model([convolution(), *head()], opsets=imports))
    for old in (1, 5, 6, 7, 9, 10, 11, 12, 13):
        yield f"opset {old} with an empty input", files(model([clip, *head()], [most], opsets=(("", old),)))
