"""Integer divisions that end a process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import helper, numpy_helper

from tests.fuzz.cases import Case
from tests.fuzz.known.making import files, head, model


def integer_division() -> Iterator[Case]:
    for operator in ("Div", "Mod"):
        for kind in (np.int32, np.int64):
            for number, by in ((np.iinfo(kind).min, -1), (1, 0)):
                name = f"{operator} {np.dtype(kind).name} {number} by {by}"
                constants = [numpy_helper.from_array(np.array([value], kind), key) for key, value in (("a", number), ("b", by))]
                nodes = [
                    helper.make_node(operator, ["a", "b"], ["q"]),
                    helper.make_node("Cast", ["q"], ["f"], to=1),
                    helper.make_node("Mul", ["image", "f"], ["maps"]),
                    *head(),
                ]
                yield f"{name}, folded", files(model(nodes, constants))
                nodes = [
                    helper.make_node("Mul", ["image", "zero"], ["none"]),
                    helper.make_node("Cast", ["none"], ["z"], to=helper.np_dtype_to_tensor_dtype(np.dtype(kind))),
                    helper.make_node("Add", ["z", "a"], ["big"]),
                    helper.make_node(operator, ["big", "b"], ["q"]),
                    helper.make_node("Cast", ["q"], ["f"], to=1),
                    helper.make_node("Add", ["image", "f"], ["maps"]),
                    *head(),
                ]
                zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
                yield f"{name}, of the image", files(model(nodes, [*constants, zero]))
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"], start=2, end=3),
        helper.make_node("Mul", ["shape", "none"], ["z"]),
        helper.make_node("Add", ["z", "a"], ["big"]),
        helper.make_node("Div", ["big", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["f"], to=1),
        helper.make_node("Mul", ["image", "f"], ["maps"]),
        *head(),
    ]
    values = {"none": 0, "a": np.iinfo(np.int64).min, "b": -1}
    constants = [numpy_helper.from_array(np.array([value], np.int64), key) for key, value in values.items()]
    yield "Div of a shape", files(model(nodes, constants))
