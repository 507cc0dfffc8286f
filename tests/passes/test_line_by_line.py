"""A mean or sum along one axis of a map and then along the other is updated by what changed, as one over both is."""

from __future__ import annotations

import pytest
from networks import Builder
from source_file import Network, assert_equals_source, integers, save

UPDATED = "updated by what changed"


def reduced(op: str, x: str, b: Builder, axis: int, keepdims: int = 1) -> str:
    return b.node(op, x, integers(b, axis), keepdims=keepdims)


def trunk(b: Builder) -> str:
    return b.relu(b.conv("image", 4, pads=[1, 1, 1, 1]))


def flat(b: Builder, x: str) -> str:
    return b.node("Flatten", x)


def rows_first(b: Builder, opset: int) -> str:
    return flat(b, reduced("ReduceMean", reduced("ReduceMean", trunk(b), b, 3), b, 2, keepdims=0))


def columns_first(b: Builder, opset: int) -> str:
    return flat(b, reduced("ReduceSum", reduced("ReduceSum", trunk(b), b, -2), b, -1))


def channels_last(b: Builder, opset: int) -> str:
    x = b.node("Transpose", trunk(b), perm=[0, 2, 3, 1])
    return flat(b, reduced("ReduceMean", reduced("ReduceMean", x, b, 2), b, 1))


def read_twice(b: Builder, opset: int) -> str:
    """What else reads the lines still has all of them."""
    lines = reduced("ReduceMean", trunk(b), b, 3)
    return flat(b, b.node("Add", reduced("ReduceMean", lines, b, 2), reduced("ReduceMax", lines, b, 2)))


def of_two_kinds(b: Builder, opset: int) -> str:
    return flat(b, reduced("ReduceMean", reduced("ReduceSum", trunk(b), b, 3), b, 2))


def not_of_all_cells(b: Builder, opset: int) -> str:
    return flat(b, reduced("ReduceMean", reduced("ReduceMean", trunk(b), b, 3), b, 1))


@pytest.mark.parametrize(
    ("network", "updated"),
    [
        (rows_first, True),
        (columns_first, True),
        (channels_last, True),
        (read_twice, False),
        (of_two_kinds, False),
        (not_of_all_cells, False),
    ],
)
def test_one_axis_then_the_other(network: Network, updated, tmp_path):
    nodes = assert_equals_source(save(tmp_path, network, 18)).report.nodes
    assert any(UPDATED in node.reason for node in nodes) == updated
