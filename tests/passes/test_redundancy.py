"""Redundancy ratios: the paper's figures, and a count by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from networks import Builder

from kcompiler.passes.choosing import costs
from kcompiler.passes.plan import make_plan


def vgg16_graph() -> gs.Graph:
    """VGG16 at 224 pixels, shapes only: weights are zeros of one number a layer, broadcast."""
    widths = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]
    value = gs.Variable("image", np.float32, ["batch", 3, 224, 224])
    graph = gs.Graph(inputs=[value], opset=18)
    channels, size = 3, 224
    for number, width in enumerate(widths):
        size = size if width else size // 2
        out = gs.Variable(f"v{number}", np.float32, ["batch", width or channels, size, size])
        if width:
            weights = gs.Constant(f"w{number}", np.broadcast_to(np.float32(0), (width, channels, 3, 3)))
            attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}
            graph.nodes.append(gs.Node("Conv", f"n{number}", attributes, [value, weights], [out]))
        else:
            graph.nodes.append(gs.Node("MaxPool", f"n{number}", {"kernel_shape": [2, 2], "strides": [2, 2]}, [value], [out]))
        value, channels = out, width or channels
    flat = gs.Variable("flat", np.float32, ["batch", 25088])
    graph.nodes.append(gs.Node("Flatten", "flatten", {}, [value], [flat]))
    value, depth = flat, 25088
    for number, width in enumerate((4096, 4096, 1000)):
        out = gs.Variable(f"f{number}", np.float32, ["batch", width])
        weights = gs.Constant(f"fw{number}", np.broadcast_to(np.float32(0), (depth, width)))
        graph.nodes.append(gs.Node("Gemm", f"fc{number}", {}, [value, weights], [out]))
        value, depth = out, width
    graph.outputs = [value]
    return graph


def test_flops_of_vgg16():
    """15.47 G multiply-adds in convolutions and fully connected layers."""
    assert sum(costs.flops(node) for node in vgg16_graph().nodes) / 2 == pytest.approx(15.47e9, rel=1e-3)


@pytest.mark.parametrize(("patch", "ratio"), [(4, 8.59), (16, 6.52), (32, 5.04)])
def test_paper_ratio_of_vgg16(patch, ratio):
    """SIGMOD 2019, figure 3."""
    graph = vgg16_graph()
    assert costs.redundancy_paper(graph, make_plan(graph, (patch, patch))) == pytest.approx(ratio, rel=0.01)


def test_tight_ratio_of_vgg16():
    graph = vgg16_graph()
    assert costs.redundancy_tight(graph, make_plan(graph, (16, 16)), 4) == pytest.approx(9.14, rel=0.005)


def test_tight_ratio_counts_cells_one_by_one():
    builder = Builder()
    x = builder.conv("image", 4, pads=[1, 1, 1, 1])
    y = builder.conv(x, 4, 3, strides=[2, 2])
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(builder.model(y, 11, 11)))
    plan = make_plan(graph, (3, 3))
    cells = []
    for top in range(0, 9, 2):
        for left in range(0, 9, 2):
            area = 1
            first = [(max(0, c - 1), min(11, c + 4)) for c in (top, left)]
            second = [[o for o in range(5) if a < o * 2 + 3 and b > o * 2] for a, b in first]
            area = [np.prod([b - a for a, b in first]), np.prod([len(o) for o in second])]
            cells.append(area)
    mean = np.mean(cells, axis=0)
    full = [costs.flops(node) for node in graph.nodes]
    recomputed = full[0] * mean[0] / 121 + full[1] * mean[1] / 25 + sum(full[2:])
    assert costs.redundancy_tight(graph, plan, 2) == pytest.approx(sum(full) / recomputed)
