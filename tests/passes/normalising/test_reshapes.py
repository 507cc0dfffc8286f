"""Random chains of layout give the same numbers when they are one operator."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.normalising.reshapes import straighten

SIDES = st.sampled_from([1, 2, 3, 4, 6])


class Chain:
    """Nodes one after the other, on images of ``sizes``; and how to get back to the last choice of numbers."""

    def __init__(self, sizes: list[int]) -> None:
        self.image, self.sizes = list(sizes), list(sizes)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.back: list[tuple[str, list[int]]] = []

    def add(self, op, *values, **attributes):
        names = [f"constant_{len(self.constants) + n}" for n in range(len(values))]
        self.constants.extend(numpy_helper.from_array(np.asarray(v), name) for v, name in zip(values, names, strict=True))
        before = self.nodes[-1].output[0] if self.nodes else "image"
        self.nodes.append(helper.make_node(op, [before, *names], [f"value_{len(self.nodes)}"], **attributes))

    def reshape(self, sizes):
        self.back.append(("reshape", self.sizes))
        self.sizes = list(sizes)
        self.add("Reshape", np.array([-1, *sizes]))

    def transpose(self, order):
        self.back.append(("transpose", np.argsort(order).tolist()))
        self.sizes = [self.sizes[axis] for axis in order]
        self.add("Transpose", perm=[0, *(axis + 1 for axis in order)])

    def unsqueeze(self, axis):
        self.back.append(("reshape", self.sizes))
        self.sizes = [*self.sizes[:axis], 1, *self.sizes[axis:]]
        self.add("Unsqueeze", np.array([axis + 1]))

    def gather(self, axis, number):
        self.back = []
        self.add("Gather", np.array(number % self.sizes[axis]), axis=axis + 1)
        self.sizes = [*self.sizes[:axis], *self.sizes[axis + 1 :]]

    def go_back(self):
        for step, how in reversed(self.back):
            getattr(self, step)(how)

    def model(self) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", 1, ["batch", *self.image])
        output = helper.make_tensor_value_info(self.nodes[-1].output[0], 1, None)
        graph = helper.make_graph(self.nodes, "g", [image], [output], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def factorised(number, count):
    """All ways to write a number as a product of ``count``."""
    if count == 1:
        return [[number]]
    return [[one, *rest] for one in range(1, number + 1) if number % one == 0 for rest in factorised(number // one, count - 1)]


def step(draw, chain):
    rank = len(chain.sizes)
    kind = draw(st.sampled_from(["reshape", "transpose", "unsqueeze", "gather", "Relu", "Neg", "Mul"]))
    if kind == "reshape":
        chain.reshape(draw(st.sampled_from(factorised(math.prod(chain.sizes), draw(st.integers(1, 5))))))
    elif kind == "transpose":
        chain.transpose(draw(st.permutations(range(rank))))
    elif kind == "unsqueeze":
        chain.unsqueeze(draw(st.integers(0, rank)))
    elif kind == "gather" and rank:
        chain.gather(draw(st.integers(0, rank - 1)), draw(st.integers(0, 5)))
    elif kind == "Mul":
        chain.add(kind, np.full([1] * draw(st.integers(0, rank + 1)), 0.5, np.float32))
    else:
        chain.add(kind if kind == "Neg" else "Relu")


@st.composite
def chains(draw: st.DrawFn) -> onnx.ModelProto:
    """Random steps from a map; then, or not, the way back; then a reshape to a map."""
    chain = Chain([draw(SIDES) for _ in range(3)])
    for _ in range(draw(st.integers(1, 4))):
        step(draw, chain)
    if draw(st.booleans()):
        chain.go_back()
    chain.reshape(draw(st.sampled_from(factorised(math.prod(chain.sizes), 3))))
    return chain.model()


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(chains())
def test_random_chains_give_the_same_numbers(model):
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True))
    straighten(graph, Emitter(graph))
    graph.cleanup().toposort()
    straightened = gs.export_onnx(graph)
    onnx.checker.check_model(straightened, full_check=True)
    images = np.random.default_rng(0).standard_normal((3, *graph.inputs[0].shape[1:]), dtype=np.float32)
    runs = [InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]) for one in (model, straightened)]
    expected, found = (run.run(None, {"image": images})[0] for run in runs)
    np.testing.assert_array_equal(found, expected)


def test_an_index_outside_its_axis_is_left_to_onnx_runtime():
    from kcompiler.passes.normalising.reshapes import _is_within

    inside = [_is_within(np.array(index), 3) for index in (-4, -3, 0, 2, 3, 65536)]
    assert inside == [False, True, True, True, False, False]
