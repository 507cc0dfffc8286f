"""Sizes of images, batches and outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.cases import Case
from tests.fuzz.known.making import convolution, files, filters, head, model


def image_sizes() -> Iterator[Case]:
    sizes = (
        (1 << 31, 1),
        (1 << 31, 1 << 31),
        (1 << 62, 3),
        (1, 1 << 33),
        (46341, 46341),
        (1 << 20, 1 << 10),
        (4096, 4096),
        (0, 8),
        (-5, 8),
    )
    for height, width in sizes:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])
        yield f"image of {height} x {width}", files(model([convolution(), *head()], image=image))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1 << 31, 8, 8])
    yield "image of 2^31 channels", files(model([helper.make_node("Relu", ["image"], ["maps"]), *head()], image=image))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1 << 31, 3, 8, 8])
    yield "batch of 2^31", files(model([convolution(), *head()], image=image))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1 << 12, 3, 8, 8])
    yield "batch of 2^12", files(model([convolution(), *head()], image=image))


def outputs() -> Iterator[Case]:
    nodes = [convolution(), *head()]
    for shape in ([1, 0], ["n", 0], [0, 0], [1, -1], [1, 1 << 31], []):
        yield f"output declared {shape}", files(model(nodes, output=helper.make_tensor_value_info("scores", 1, shape)))
    limits = [numpy_helper.from_array(np.array([number]), name) for name, number in (("from", 0), ("to", 0), ("axes", 1))]
    pooled, flat = head()
    flat.output[0] = "all"
    empty = [convolution(), pooled, flat, helper.make_node("Slice", ["all", "from", "to", "axes"], ["scores"])]
    for shape in ([1, 0], ["n", 0]):
        scores = helper.make_tensor_value_info("scores", 1, shape)
        yield f"empty output {shape}", files(model(empty, [filters(), *limits], output=scores))
