"""Operators of types, domains and chance that no map comes from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import helper, numpy_helper

from tests.fuzz.cases import Case
from tests.fuzz.known.making import files, filters, head, model


def operators() -> Iterator[Case]:
    listed = [helper.make_node("SequenceConstruct", ["image"], ["s"]), helper.make_node("SequenceAt", ["s", "z"], ["maps"])]
    yield "sequence", files(model([*listed, *head()], [numpy_helper.from_array(np.array(0), "z")]))
    yield "strings", files(model([helper.make_node("Cast", ["image"], ["scores"], to=8)], []))
    strange = helper.make_node("Conv", ["image", "weights"], ["maps"], domain="nowhere")
    yield "unknown domain", files(model([strange, *head()], [filters()], opsets=(("", 18), ("nowhere", 1))))
    yield "random", files(model([helper.make_node("RandomNormalLike", ["image"], ["maps"]), *head()], []))
