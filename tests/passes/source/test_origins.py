"""Which node of the file a node of the normalised graph stems from."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from kcompiler.passes.source.origins import Origins


def model(*nodes):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph(list(nodes), "g", [image], [helper.make_empty_tensor_value_info(nodes[-1].output[0])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_named_nodes_their_parts_and_what_nobody_wrote():
    file = model(
        helper.make_node("HardSwish", ["image"], ["a"], name="swish"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Abs", ["b"], ["c"], name="abs"),
    )
    normalised = model(
        helper.make_node("Identity", ["image"], ["in"], name="Identity_9"),
        helper.make_node("HardSigmoid", ["in"], ["gate"], name="HardSigmoid_1"),
        helper.make_node("Mul", ["in", "gate"], ["a"], name="Mul_1"),
        helper.make_node("Relu", ["a"], ["b"], name="Relu_2"),
        helper.make_node("Transpose", ["b"], ["turned"], name="Transpose_3"),
        helper.make_node("Abs", ["turned"], ["c"], name="abs"),
    )
    found = Origins.of(file.graph).find(gs.import_onnx(onnx.shape_inference.infer_shapes(normalised)))
    assert found == {
        "Identity_9": "swish",  # the parts of one operator read it, and nothing else
        "HardSigmoid_1": "swish",
        "Mul_1": "swish",
        "Relu_2": "b",  # which has no name of its own
        "Transpose_3": "",
        "abs": "abs",
    }


def test_a_part_of_two_operators_is_of_neither():
    file = model(
        helper.make_node("HardSwish", ["image"], ["a"], name="one"), helper.make_node("HardSwish", ["image"], ["b"], name="two")
    )
    normalised = model(
        helper.make_node("HardSigmoid", ["image"], ["gate"], name="shared"),
        helper.make_node("Mul", ["image", "gate"], ["a"], name="first"),
        helper.make_node("Mul", ["image", "gate"], ["b"], name="second"),
    )
    found = Origins.of(file.graph).find(gs.import_onnx(normalised))
    assert found == {"shared": "", "first": "one", "second": "two"}
