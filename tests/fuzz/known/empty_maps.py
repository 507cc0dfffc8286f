"""Maps without cells, or with less than a window needs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz.cases import Case
from tests.fuzz.known.making import files, head, model


def empty_maps() -> Iterator[Case]:
    two_rows = helper.make_node("MaxPool", ["image"], ["small"], kernel_shape=[1, 1], strides=[7, 3])
    three = helper.make_node("Conv", ["small", "weights"], ["maps"], "conv", kernel_shape=[3, 3])
    yield "map without cells", files(model([two_rows, three, *head()]))

    flat = helper.make_node("Flatten", ["image"], ["f"])
    pool = helper.make_node("AveragePool", ["f"], ["scores"], kernel_shape=[1, 2], ceil_mode=1)
    yield "pool of a row", files(model([flat, pool], []))

    limits = [numpy_helper.from_array(np.array([number]), name) for name, number in (("from", 8), ("to", 9), ("axes", 2))]
    none = helper.make_node("Slice", ["image", "from", "to", "axes"], ["none"])
    yield "slice of no line", files(model([none, *_beside()], [*limits, _AXES]))

    resize = helper.make_node("Resize", ["image", "", "scales"], ["none"])
    for what, scale in (("rows", [1, 1, 0.1, 1]), ("channels", [1, 0.1, 1, 1])):  # 8 and 3 of them, rounded down
        scales = numpy_helper.from_array(np.array(scale, np.float32), "scales")
        yield f"resized to no {what}", files(model([resize, *_beside()], [scales, _AXES]))


_AXES = numpy_helper.from_array(np.array([2, 3]), "axes of cells")


def _beside() -> list[onnx.NodeProto]:
    """The sum of the map ``none``, which is 0, beside the mean of the image: ONNX Runtime averages no empty map, but sums one."""
    both = helper.make_node("Concat", ["sum", "mean"], ["scores"], axis=1)
    total = helper.make_node("ReduceSum", ["none", "axes of cells"], ["sum"], keepdims=0)
    return [total, *head("image", "mean"), both]
